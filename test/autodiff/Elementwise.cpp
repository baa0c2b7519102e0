// SPDX-License-Identifier: MPL-2.0
#define BOOST_TEST_MODULE Elementwise
#include "Support.h"

#include <boost/test/data/test_case.hpp>

#include <cmath>

using namespace EigenQ::ad;
using Eigen::MatrixXd;
using EigenQ::test::expectClose;
using EigenQ::test::expectGradient;
using EigenQ::test::randomMatrix;
namespace data = boost::unit_test::data;

namespace {

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

struct UnaryOp {
  const char* name;
  Var<double> (*op)(const Var<double>&);
  double (*formula)(double);
  friend std::ostream& operator<<(std::ostream& out, const UnaryOp& op) { return out << op.name; }
};

const UnaryOp kUnaryOps[] = {
    {"scale", [](const Var<double>& x) { return scale(x, -2.5); }, [](double x) { return -2.5 * x; }},
    {"negate", [](const Var<double>& x) { return -x; }, [](double x) { return -x; }},
    {"divide", [](const Var<double>& x) { return x / 4; }, [](double x) { return x / 4; }},
    {"relu", [](const Var<double>& x) { return relu(x); }, [](double x) { return x > 0 ? x : 0; }},
    {"tanh", [](const Var<double>& x) { return EigenQ::ad::tanh(x); }, [](double x) { return std::tanh(x); }},
    {"silu", [](const Var<double>& x) { return silu(x); }, [](double x) { return x * sigmoid(x); }},
    {"gelu", [](const Var<double>& x) { return gelu(x); },
     [](double x) { return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0))); }},
};

struct BinaryOp {
  const char* name;
  Var<double> (*op)(const Var<double>&, const Var<double>&);
  double (*formula)(double, double);
  friend std::ostream& operator<<(std::ostream& out, const BinaryOp& op) { return out << op.name; }
};

const BinaryOp kBinaryOps[] = {
    {"add", [](const Var<double>& a, const Var<double>& b) { return a + b; }, [](double a, double b) { return a + b; }},
    {"sub", [](const Var<double>& a, const Var<double>& b) { return a - b; }, [](double a, double b) { return a - b; }},
    {"cwiseProduct", [](const Var<double>& a, const Var<double>& b) { return cwiseProduct(a, b); },
     [](double a, double b) { return a * b; }},
    {"swiglu", [](const Var<double>& a, const Var<double>& b) { return swiglu(a, b); },
     [](double a, double b) { return a * sigmoid(a) * b; }},
};

const std::pair<Eigen::Index, Eigen::Index> kShapes[] = {{1, 1}, {5, 1}, {1, 3}, {7, 5}, {0, 3}, {3, 0}};

}  // namespace

BOOST_DATA_TEST_CASE(unaryOps, data::make(kUnaryOps), op) {
  for (const auto& shape : kShapes) {
    expectGradient([&](Tape<double>&, const auto& v) { return op.op(v[0]); }, {shape});
    const MatrixXd x = 4 * randomMatrix(shape.first, shape.second, 9);
    Tape<double> tape;
    expectClose(op.op(tape.constant(x)).value(), x.unaryExpr(op.formula), 1e-14);
  }
}

BOOST_DATA_TEST_CASE(binaryOps, data::make(kBinaryOps), op) {
  for (const auto& shape : kShapes) {
    expectGradient([&](Tape<double>&, const auto& v) { return op.op(v[0], v[1]); }, {shape, shape});
    const MatrixXd a = 4 * randomMatrix(shape.first, shape.second, 8), b = randomMatrix(shape.first, shape.second, 9);
    Tape<double> tape;
    expectClose(op.op(tape.constant(a), tape.constant(b)).value(), a.binaryExpr(b, op.formula), 1e-14);
  }
}

BOOST_DATA_TEST_CASE(binaryOpsOfOneMatrixWithItself, data::make(kBinaryOps), op) {
  expectGradient([&](Tape<double>&, const auto& v) { return op.op(v[0], v[0]); }, {{3, 2}});
}

BOOST_AUTO_TEST_CASE(extremeArgumentsStayFinite) {
  MatrixXd x(1, 4);
  x << -1e3, 1e3, -40, 40;
  Tape<double> tape;
  const Var<double> v = tape.variable(x);
  const Var<double> y = sum(silu(v) + gelu(v) + EigenQ::ad::tanh(v) + swiglu(v, v));
  tape.backward(y);
  BOOST_TEST(std::isfinite(y.item()));
  BOOST_TEST(v.grad().allFinite());
}

BOOST_AUTO_TEST_CASE(opsAgreeWithTheExpressionsOfTheSameName) {
  const MatrixXd x = 8 * randomMatrix(9, 9, 3);
  Tape<double> tape;
  const Var<double> v = tape.constant(x);
  expectClose(relu(v).value(), EigenQ::relu(x), 0);
  expectClose(gelu(v).value(), EigenQ::gelu(x), 0);
  expectClose(silu(v).value(), EigenQ::silu(x), 1e-15);
  expectClose(EigenQ::ad::tanh(v).value(), EigenQ::tanh(x), 1e-15);
}

BOOST_AUTO_TEST_CASE(aNaNIsNeverHidden) {
  Tape<double> tape;
  const Var<double> nan = tape.constant(MatrixXd::Constant(3, 3, std::nan("")));
  for (const UnaryOp& op : kUnaryOps) BOOST_TEST(op.op(nan).value().hasNaN(), op.name);
}

BOOST_AUTO_TEST_CASE(reluHasNoSlopeAtZero) {
  Tape<double> tape;
  const Var<double> x = tape.variable(MatrixXd::Zero(1, 1));
  tape.backward(relu(x));
  BOOST_TEST(x.grad()(0, 0) == 0);
}

BOOST_AUTO_TEST_CASE(productsAndShapes) {
  for (const auto& s : kShapes) {
    const Eigen::Index m = s.first, n = s.second;
    expectGradient([](Tape<double>&, const auto& v) { return v[0] * v[1]; }, {{m, 3}, {3, n}});
    expectGradient([](Tape<double>&, const auto& v) { return matmul(v[0], v[1]); }, {{3, m}, {m, n}});
    expectGradient([](Tape<double>&, const auto& v) { return transpose(v[0]); }, {{m, n}});
    expectGradient([](Tape<double>&, const auto& v) { return sum(v[0]); }, {{m, n}});
    if (m * n > 0) expectGradient([](Tape<double>&, const auto& v) { return mean(v[0]); }, {{m, n}});
    expectGradient([&](Tape<double>&, const auto& v) { return middleRows(v[0], m / 2, m - m / 2); }, {{m, n}});
    expectGradient([&](Tape<double>&, const auto& v) { return middleCols(v[0], n / 2, n - n / 2); }, {{m, n}});
  }
}

BOOST_AUTO_TEST_CASE(valuesOfProductsAndShapes) {
  const MatrixXd a = randomMatrix(4, 3, 1), b = randomMatrix(3, 5, 2);
  Tape<double> tape;
  const Var<double> x = tape.constant(a), y = tape.constant(b);
  MatrixXd product = MatrixXd::Zero(4, 5);
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 5; ++j)
      for (int k = 0; k < 3; ++k) product(i, j) += a(i, k) * b(k, j);
  expectClose((x * y).value(), product, 1e-15);
  double total = 0;
  for (double entry : a.reshaped()) total += entry;
  BOOST_TEST(sum(x).item() == total, boost::test_tools::tolerance(1e-14));
  BOOST_TEST(mean(x).item() == total / 12, boost::test_tools::tolerance(1e-14));
  BOOST_TEST((transpose(x).value() == a.transpose()));
  BOOST_TEST((middleRows(x, 1, 2).value() == a.middleRows(1, 2)));
  BOOST_TEST((middleCols(x, 0, 2).value() == a.middleCols(0, 2)));
  BOOST_TEST(sum(tape.constant(MatrixXd(0, 3))).item() == 0);
}
