// Reading the JSON files that come with models: every fault is an Error that names the file and the key.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace brushwork {

using Json = nlohmann::json;

// One parsed `config.json`, with typed access. A missing key or a value of another type is MODEL_LOAD_FAILED and names
// the file, the key and what was found.
class JsonFile {
 public:
  // Throws MODEL_LOAD_FAILED when the file can't be read, is above 16 MiB or is no JSON object.
  explicit JsonFile(std::string path);

  const std::string& path() const { return path_; }
  const Json& value() const { return value_; }

  // True where the key exists and is not null.
  bool has(const std::string& key) const;

  std::string string(const std::string& key) const;
  std::string string(const std::string& key, const std::string& fallback) const;
  int64_t integer(const std::string& key) const;
  int64_t integer(const std::string& key, int64_t fallback) const;
  double number(const std::string& key, double fallback) const;
  bool boolean(const std::string& key, bool fallback) const;
  std::vector<std::string> strings(const std::string& key) const;
  std::vector<int64_t> integers(const std::string& key) const;

  // Throws MODEL_LOAD_FAILED: "<path>: <what>".
  [[noreturn]] void fail(const std::string& what) const;

 private:
  const Json& at(const std::string& key) const;

  std::string path_;
  Json value_;
};

}  // namespace brushwork
