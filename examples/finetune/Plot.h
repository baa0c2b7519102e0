// SPDX-License-Identifier: MPL-2.0
// The loss curves of a run as an SVG picture.
#ifndef EIGENQ_FINETUNE_PLOT_H
#define EIGENQ_FINETUNE_PLOT_H

#include <cmath>
#include <cstdio>
#include <limits>
#include <string>
#include <vector>

#include "Curve.h"

namespace finetune {
namespace svg {

template <typename... Args>
std::string format(const char* pattern, Args... args) {
  char text[400];
  std::snprintf(text, sizeof text, pattern, args...);
  return text;
}

/** Text inside an XML element. */
inline std::string escape(const std::string& text) {
  std::string escaped;
  for (const char c : text) escaped += c == '&' ? "&amp;" : c == '<' ? "&lt;" : c == '>' ? "&gt;" : std::string(1, c);
  return escaped;
}

/** \param anchor  start, middle or end of the text, which is at (x, y). \param style  further attributes. */
inline std::string label(double x, double y, const char* anchor, const std::string& text, const char* style = "") {
  return format("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" %s>", x, y, anchor, style) + escape(text) + "</text>\n";
}

inline std::string line(double x1, double y1, double x2, double y2, const char* colour) {
  return format("<path d=\"M%.1f,%.1f L%.1f,%.1f\" stroke=\"%s\"/>\n", x1, y1, x2, y2, colour);
}

struct Box {
  double left, top, width, height;
  double right() const { return left + width; }
  double bottom() const { return top + height; }
};

}  // namespace svg

/** One phase: every step's loss faintly, its smoothed course, and the held-out loss as dots. */
class LossPanel {
 public:
  /** \param phase  outlives the panel. \param area  between the axes. */
  LossPanel(const Phase& phase, const char* colour, const svg::Box& area)
      : m_phase(phase),
        m_colour(colour),
        m_area(area),
        m_steps(std::max<double>(1, static_cast<double>(phase.steps()))) {
    double least = std::numeric_limits<double>::infinity(), most = -least;
    const auto include = [&](double loss) {
      if (!std::isfinite(loss)) return;
      least = std::min(least, loss);
      most = std::max(most, loss);
    };
    for (const double loss : phase.trainLoss) include(loss);
    for (const auto& [step, loss] : phase.heldOut) include(loss);
    if (!(least <= most)) return;  // nothing to show
    m_low = std::floor(least * 5) / 5;
    m_high = std::max(m_low + 0.2, std::ceil(most * 5) / 5);
  }

  std::string svg() const {
    const std::vector<double>& losses = m_phase.trainLoss;
    return axes() + curve(losses, "stroke-opacity=\"0.25\"") +
           curve(smooth(losses, std::max<std::size_t>(losses.size() / 40, losses.size() > 20 ? 2 : 0)),
                 "stroke-width=\"2\"") +
           heldOut();
  }

 private:
  double x(double step) const { return m_area.left + m_area.width * step / m_steps; }
  double y(double loss) const { return m_area.top + m_area.height * (m_high - loss) / (m_high - m_low); }

  std::string axes() const {
    std::string out;
    for (const double tick : roundTicks(m_low, m_high, 7))
      out += svg::line(m_area.left, y(tick), m_area.right(), y(tick), "#e5e5e5") +
             svg::label(m_area.left - 8, y(tick) + 4.5, "end", svg::format("%g", tick));
    for (const double tick : roundTicks(0, m_steps, 5)) {
      if (tick != std::floor(tick)) continue;  // there is no half step
      out += svg::line(x(tick), m_area.bottom(), x(tick), m_area.bottom() + 5, "#333") +
             svg::label(x(tick), m_area.bottom() + 20, "middle", svg::format("%g", tick));
    }
    const double middle = m_area.left + m_area.width / 2;
    return out + svg::line(m_area.left, m_area.top, m_area.left, m_area.bottom(), "#333") +
           svg::line(m_area.left, m_area.bottom(), m_area.right(), m_area.bottom(), "#333") +
           svg::label(middle, m_area.bottom() + 42, "middle", "step") +
           svg::label(middle, m_area.top - 12, "middle", m_phase.title, "font-weight=\"bold\"");
  }

  std::string curve(const std::vector<double>& losses, const char* style) const {
    std::string points;
    for (std::size_t i = 0; i < losses.size(); ++i)
      if (std::isfinite(losses[i])) points += svg::format("%.1f,%.1f ", x(static_cast<double>(i + 1)), y(losses[i]));
    return svg::format("<polyline fill=\"none\" stroke-linejoin=\"round\" stroke=\"%s\" %s points=\"", m_colour,
                       style) +
           points + "\"/>\n";
  }

  std::string heldOut() const {
    std::string out;
    for (const auto& [step, loss] : m_phase.heldOut)
      out += svg::format("<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\" fill=\"white\" stroke=\"%s\" stroke-width=\"2\"/>\n",
                         x(static_cast<double>(step)), y(loss), m_colour);
    return out;
  }

  const Phase& m_phase;
  const char* m_colour;
  svg::Box m_area;
  double m_steps;
  double m_low = 0;
  double m_high = 1;
};

/** Phases side by side, each over its own steps and losses, in nats per \a unit. */
inline std::string plotLosses(const std::vector<Phase>& phases, const char* unit = "byte") {
  constexpr double kWidth = 460, kHeight = 440;  // of a panel with its axes
  constexpr double kLegend = 40;
  constexpr const char* kColours[] = {"#1f6fb2", "#c2410c"};
  const double width = kWidth * std::max<double>(1, static_cast<double>(phases.size())), height = kLegend + kHeight;
  std::string out = svg::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %g %g\" width=\"%g\" height=\"%g\" "
      "font-family=\"sans-serif\" font-size=\"13\" fill=\"#333\">\n<rect width=\"%g\" height=\"%g\" fill=\"white\"/>\n",
      width, height, width, height, width, height);
  for (std::size_t i = 0; i < phases.size(); ++i)
    out += LossPanel(phases[i], kColours[i % 2],
                     {kWidth * static_cast<double>(i) + 66, kLegend + 40, kWidth - 84, kHeight - 100})
               .svg();
  out += svg::format(
      "<text transform=\"translate(18,%g) rotate(-90)\" text-anchor=\"middle\">loss (nats per %s)</text>\n",
      kLegend + 40 + (kHeight - 100) / 2, unit);
  out +=
      "<g stroke=\"#555\" fill=\"none\"><path d=\"M66,24 h28\" stroke-opacity=\"0.35\"/>"
      "<path d=\"M248,24 h28\" stroke-width=\"2\"/><circle cx=\"440\" cy=\"24\" r=\"4\" stroke-width=\"2\"/></g>\n";
  out += svg::label(102, 28.5, "start", "training, each step") + svg::label(284, 28.5, "start", "training, smoothed") +
         svg::label(452, 28.5, "start", "held out");
  return out + "</svg>\n";
}

}  // namespace finetune

#endif  // EIGENQ_FINETUNE_PLOT_H
