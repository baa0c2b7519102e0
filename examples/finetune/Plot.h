// SPDX-License-Identifier: MPL-2.0
// The loss curves of a run as an SVG picture.
#ifndef EIGENQ_FINETUNE_PLOT_H
#define EIGENQ_FINETUNE_PLOT_H

#include <cstdio>
#include <string>
#include <vector>

#include "Curve.h"

namespace finetune {

/** Text inside an XML element. */
inline std::string escapeXml(const std::string& text) {
  std::string escaped;
  for (const char c : text) {
    if (c == '&')
      escaped += "&amp;";
    else if (c == '<')
      escaped += "&lt;";
    else if (c == '>')
      escaped += "&gt;";
    else
      escaped += c;
  }
  return escaped;
}

/** Draws phases one behind the other over a common axis of steps: every step's loss faintly, its smoothed course, and
 * the held-out loss as dots. */
class LossPlot {
 public:
  explicit LossPlot(const std::vector<Phase>& phases) : m_phases(phases) {
    double least = std::numeric_limits<double>::infinity(), most = -least;
    const auto include = [&](double loss) {
      least = std::min(least, loss);
      most = std::max(most, loss);
    };
    for (const Phase& phase : phases) {
      for (const double loss : phase.trainLoss) include(loss);
      for (const auto& [step, loss] : phase.heldOut) include(loss);
      m_steps += static_cast<double>(phase.steps());
    }
    if (!(least < most)) least -= 0.5, most = least + 1;  // a single point, or none
    m_steps = std::max(m_steps, 1.0);
    m_low = std::floor(least * 5) / 5;
    m_high = std::ceil(most * 5) / 5;
  }

  std::string svg() const {
    std::string body = frame();
    double before = 0;
    for (std::size_t i = 0; i < m_phases.size(); ++i) {
      body += phase(m_phases[i], before, kColours[i % 2]);
      before += static_cast<double>(m_phases[i].steps());
    }
    return format(
               "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %g %g\" width=\"%g\" height=\"%g\" "
               "font-family=\"sans-serif\" font-size=\"13\">\n",
               kWidth, kHeight, kWidth, kHeight) +
           format("<rect width=\"%g\" height=\"%g\" fill=\"white\"/>\n", kWidth, kHeight) + body + legend() +
           "</svg>\n";
  }

 private:
  static constexpr double kWidth = 880, kHeight = 480;
  static constexpr double kLeft = 64, kRight = 24, kTop = 56, kBottom = 56;
  static constexpr const char* kColours[] = {"#1f6fb2", "#c2410c"};

  template <typename... Args>
  static std::string format(const char* pattern, Args... args) {
    char text[400];
    std::snprintf(text, sizeof text, pattern, args...);
    return text;
  }

  double x(double step) const { return kLeft + (kWidth - kLeft - kRight) * step / m_steps; }
  double y(double loss) const { return kTop + (kHeight - kTop - kBottom) * (m_high - loss) / (m_high - m_low); }

  static std::string label(double atX, double atY, const char* anchor, const std::string& text) {
    return format("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" fill=\"#333\">", atX, atY, anchor) + escapeXml(text) +
           "</text>\n";
  }

  /** Title, axes with their ticks and names. */
  std::string frame() const {
    const double bottom = kHeight - kBottom, right = kWidth - kRight;
    std::string out;
    for (const double tick : roundTicks(m_low, m_high, 7)) {
      out += format("<line x1=\"%g\" x2=\"%g\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"#e5e5e5\"/>\n", kLeft, right, y(tick),
                    y(tick));
      out += label(kLeft - 8, y(tick) + 4.5, "end", format("%g", tick));
    }
    for (const double tick : roundTicks(0, m_steps, 8)) {
      if (tick != std::floor(tick)) continue;  // there is no half step
      out += format("<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%g\" y2=\"%g\" stroke=\"#333\"/>\n", x(tick), x(tick), bottom,
                    bottom + 5);
      out += label(x(tick), bottom + 20, "middle", format("%g", tick));
    }
    out += format("<path d=\"M%g,%g V%g H%g\" fill=\"none\" stroke=\"#333\"/>\n", kLeft, kTop, bottom, right);
    out += label((kLeft + right) / 2, kHeight - 14, "middle", "step");
    out += format(
        "<text transform=\"translate(18,%g) rotate(-90)\" text-anchor=\"middle\" fill=\"#333\">"
        "loss (nats per byte)</text>\n",
        (kTop + bottom) / 2);
    return out;
  }

  std::string phase(const Phase& phase, double before, const char* colour) const {
    const std::vector<double>& losses = phase.trainLoss;
    std::string out = line(losses, before, format("stroke=\"%s\" stroke-opacity=\"0.25\"", colour));
    out += line(smooth(losses, losses.size() / 50), before, format("stroke=\"%s\" stroke-width=\"2\"", colour));
    for (const auto& [step, loss] : phase.heldOut)
      out += format("<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\" fill=\"white\" stroke=\"%s\" stroke-width=\"2\"/>\n",
                    x(before + static_cast<double>(step)), y(loss), colour);
    const double end = before + static_cast<double>(phase.steps());
    if (before > 0)
      out += format("<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%g\" y2=\"%g\" stroke=\"#888\" stroke-dasharray=\"4 4\"/>\n",
                    x(before), x(before), kTop, kHeight - kBottom);
    out += format("<text x=\"%.1f\" y=\"%g\" text-anchor=\"middle\" fill=\"%s\" font-weight=\"bold\">",
                  x((before + end) / 2), kTop - 8, colour);
    return out + escapeXml(phase.title) + "</text>\n";
  }

  std::string line(const std::vector<double>& losses, double before, const std::string& style) const {
    std::string points;
    for (std::size_t i = 0; i < losses.size(); ++i)
      points += format("%.1f,%.1f ", x(before + static_cast<double>(i + 1)), y(losses[i]));
    return "<polyline fill=\"none\" stroke-linejoin=\"round\" " + style + " points=\"" + points + "\"/>\n";
  }

  static std::string legend() {
    constexpr double kY = 20;
    return format(
               "<g stroke=\"#555\" fill=\"none\"><path d=\"M%g,%g h28\" stroke-opacity=\"0.35\"/>"
               "<path d=\"M%g,%g h28\" stroke-width=\"2\"/>"
               "<circle cx=\"%g\" cy=\"%g\" r=\"4\" stroke-width=\"2\"/></g>\n",
               kLeft + 8, kY, kLeft + 190, kY, kLeft + 400, kY) +
           label(kLeft + 44, kY + 4.5, "start", "training, each step") +
           label(kLeft + 226, kY + 4.5, "start", "training, smoothed") +
           label(kLeft + 412, kY + 4.5, "start", "held out");
  }

  const std::vector<Phase>& m_phases;
  double m_steps = 0;
  double m_low = 0;
  double m_high = 1;
};

}  // namespace finetune

#endif  // EIGENQ_FINETUNE_PLOT_H
