// A test runner in a page: TEST(name) { ... } blocks with CHECK... lines; the first failed one ends its block.
#pragma once

#include <cmath>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/errors.h"
#include "core/torch.h"

namespace brushwork::test {

struct Case {
  const char* name;
  void (*body)();
};

inline std::vector<Case>& cases() {
  static std::vector<Case> all;
  return all;
}

inline int add_case(const char* name, void (*body)()) { return cases().push_back({name, body}), 0; }

[[noreturn]] inline void fail(const char* file, int line, const std::string& what) {
  throw std::runtime_error(std::string(file) + ":" + std::to_string(line) + ": " + what);
}

// The larger difference; infinite where one is NaN, which no comparison would notice.
inline double worse(double worst, double difference) {
  return difference <= worst ? worst : std::isnan(difference) ? INFINITY : difference;
}

// |actual / expected - 1|
inline double relative_error(double actual, double expected) { return std::abs(actual / expected - 1.0); }

// |actual - expected| / |expected| in the 2-norm, in double precision; infinite for different shapes.
inline double relative_error(const torch::Tensor& actual, const torch::Tensor& expected) {
  if (actual.sizes() != expected.sizes()) return INFINITY;
  const auto a = actual.detach().to(torch::kCPU, torch::kDouble), e = expected.detach().to(torch::kCPU, torch::kDouble);
  const double norm = e.norm().item<double>();
  return (a - e).norm().item<double>() / (norm > 0 ? norm : 1.0);
}

inline void expect_at_most(double value, double limit, const char* text, const char* file, int line) {
  if (!(value <= limit)) fail(file, line, std::string(text) + ": " + std::to_string(value * 1e6) + "e-6");
}

// Runs `body` and fails unless it throws an Error with this code whose message contains `part`.
template <typename Body>
void expect_error(Body body, ErrorCode code, const std::string& part, const char* file, int line) {
  try {
    body();
  } catch (const Error& error) {
    const std::string seen = std::string(error.code_name()) + ": " + error.what();
    if (error.code() != code || seen.find(part) == std::string::npos)
      fail(file, line, "expected \"" + part + "\", got " + seen);
    return;
  }
  fail(file, line, "nothing was thrown, expected \"" + part + "\"");
}

inline int run_all() {
  int failed = 0;
  for (const Case& c : cases()) try {
      c.body();
      std::printf("ok %s\n", c.name);
    } catch (const std::exception& error) {
      ++failed;
      std::printf("not ok %s\n  %s\n", c.name, error.what());
    }
  std::printf("%zu passed, %d failed\n", cases().size() - static_cast<size_t>(failed), failed);
  return failed == 0 ? 0 : 1;
}

}  // namespace brushwork::test

#define TEST(name)                                                                                 \
  static void test_##name();                                                                       \
  [[maybe_unused]] static const int added_##name = brushwork::test::add_case(#name, &test_##name); \
  static void test_##name()
#undef CHECK  // libtorch logs under that name
#define CHECK(condition) ((condition) ? void() : brushwork::test::fail(__FILE__, __LINE__, "expected " #condition))
#define CHECK_AT_MOST(value, limit) \
  brushwork::test::expect_at_most(value, limit, #value " <= " #limit, __FILE__, __LINE__)
#define CHECK_ERROR(statement, code, part) \
  brushwork::test::expect_error([&] { statement; }, code, part, __FILE__, __LINE__)
#define TEST_MAIN() \
  int main() { return brushwork::test::run_all(); }
