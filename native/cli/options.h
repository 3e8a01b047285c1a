// Defines: Options (the command line of the plain program).
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace brushwork::cli {

// `--name value` pairs. Every fault is an INVALID_REQUEST that names the option.
class Options {
 public:
  // Reads the arguments from index `first` on.
  Options(int argc, char** argv, int first);

  // The value of `--name`; the first form throws where it is missing.
  std::string string(const std::string& name);
  std::string string(const std::string& name, const std::string& fallback);
  int64_t integer(const std::string& name, int64_t fallback);
  double number(const std::string& name, double fallback);

  // Throws for an option that nobody asked for; call it after the last read.
  void check_all_used() const;

 private:
  struct Value {
    std::string text;
    bool is_used;
  };
  std::map<std::string, Value> values_;
};

}  // namespace brushwork::cli
