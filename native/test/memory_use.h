// How much memory is in use, for tests that bound it.
#pragma once

#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <memory>
#include <stdexcept>
#include <string>

namespace brushwork::test {

// A size in /proc/self/status, e.g. VmHWM (the most that was ever resident) or RssAnon (resident, and no file holds
// it).
inline int64_t process_memory_bytes(const std::string& name) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind(name + ":", 0) == 0) return std::stoll(line.substr(name.size() + 1)) * 1024;
  }
  throw std::runtime_error("/proc/self/status has no " + name);
}

// Hears of every block that libtorch's CPU allocator hands out or takes back, in the place of a profiler.
class AllocationMeter : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void*, int64_t size_bytes, size_t, size_t, c10::Device) override {
    in_use_bytes_ += size_bytes;
    peak_bytes_ = std::max(peak_bytes_, in_use_bytes_);
  }
  bool memoryProfilingEnabled() const override { return true; }
  int64_t peak_bytes() const { return peak_bytes_; }

 private:
  int64_t in_use_bytes_ = 0;
  int64_t peak_bytes_ = 0;
};

// The most memory that tensors on the CPU took at once while `body` ran, without what was there before.
template <typename Body>
int64_t peak_allocated_bytes(Body body) {
  const auto meter = std::make_shared<AllocationMeter>();
  const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, meter);
  body();
  return meter->peak_bytes();
}

}  // namespace brushwork::test
