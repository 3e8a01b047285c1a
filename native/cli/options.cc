#include "cli/options.h"

#include <charconv>

#include "core/errors.h"

namespace brushwork::cli {

namespace {

[[noreturn]] void fail(const std::string& message) { throw Error(ErrorCode::kInvalidRequest, message); }

template <typename Number>
Number parse(const std::string& name, const std::string& text) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) fail("--" + name + " must be a number, not " + text);
  return value;
}

}  // namespace

Options::Options(int argc, char** argv, int first) {
  for (int i = first; i < argc; i += 2) {
    const std::string word = argv[i];
    if (word.rfind("--", 0) != 0) fail("Expected an option like --name, not " + word);
    if (i + 1 == argc) fail(word + " needs a value");
    values_[word.substr(2)] = {argv[i + 1], false};
  }
}

std::string Options::string(const std::string& name) {
  if (values_.count(name) == 0) fail("--" + name + " is missing");
  return string(name, "");
}

std::string Options::string(const std::string& name, const std::string& fallback) {
  const auto found = values_.find(name);
  if (found == values_.end()) return fallback;
  found->second.is_used = true;
  return found->second.text;
}

int64_t Options::integer(const std::string& name, int64_t fallback) {
  return parse<int64_t>(name, string(name, std::to_string(fallback)));
}

double Options::number(const std::string& name, double fallback) {
  const auto text = string(name, "");
  return text.empty() ? fallback : parse<double>(name, text);
}

void Options::check_all_used() const {
  for (const auto& [name, value] : values_) {
    if (!value.is_used) fail("--" + name + " is no option of this command");
  }
}

}  // namespace brushwork::cli
