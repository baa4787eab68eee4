// How the correlation of a Markov process decays from one row to the next, and by psi.
#pragma once

#include <cmath>
#include <limits>
#include <stdexcept>
#include <string_view>

namespace lmmfast {

// c, dc/dpsi, and 1 - c and 1 - c^2, which must not come out of a subtraction where c is near one.
struct Decay {
    double c = 0.0, dc = 0.0, less = 1.0, complement = 1.0;
};

// "ar1": c = rho^lag with rho = tanh(psi), lag a whole number; "exponential": c = exp(-lag / l) with
// l = exp(psi). A lag that the process has no value for gives NaN.
class MarkovDecay {
  public:
    MarkovDecay(std::string_view name, double psi) : is_ar1_(name == "ar1") {
        if (is_ar1_) {
            const double cosh = std::cosh(psi);
            negative_ = psi < 0;
            // -log|rho|, to all digits near |rho| = 1 too
            rate_ = std::abs(psi) < 0.5 ? -std::log(std::tanh(std::abs(psi)))
                                        : 2 * std::atanh(std::exp(-2 * std::abs(psi)));
            slope_ = 1 / (cosh * cosh);
        } else if (name == "exponential") {
            rate_ = std::exp(-psi);
        } else {
            throw std::invalid_argument("the Markov engine knows 'ar1' and 'exponential'");
        }
    }

    Decay operator()(double lag) const {
        constexpr double nan = std::numeric_limits<double>::quiet_NaN();
        if (!(lag >= 0) || (is_ar1_ && lag != std::floor(lag))) return {nan, nan, nan, nan};
        if (lag == 0) return {1.0, 0.0, 0.0, 0.0};
        return is_ar1_ ? ar1(lag) : exponential(lag);
    }

  private:
    bool is_ar1_, negative_ = false;
    double rate_ = 0.0;   // c = +-exp(-rate lag)
    double slope_ = 0.0;  // drho/dpsi = 1 - rho^2

    Decay exponential(double lag) const {
        const double x = lag * rate_;
        // One call of the exponential family for both: near zero through c - 1, elsewhere through c.
        const bool is_near = x < 0.5;
        const double near = is_near ? -std::expm1(-x) : 0.0, c = is_near ? 1 - near : std::exp(-x);
        const double less = is_near ? near : 1 - c;
        return {c, c > 0 ? x * c : 0.0, less, less * (1 + c)};
    }
    Decay ar1(double lag) const {
        const bool is_odd = std::fmod(lag, 2.0) == 1.0;
        const double less = -std::expm1(-rate_ * lag), size = std::exp(-rate_ * lag);
        const double slope = lag * slope_ * (lag == 1 ? 1.0 : std::exp(-rate_ * (lag - 1)));
        const double complement = less * (1 + size);
        if (!negative_) return {size, slope, less, complement};
        return is_odd ? Decay{-size, slope, 1 + size, complement} : Decay{size, -slope, less, complement};
    }
};

}  // namespace lmmfast
