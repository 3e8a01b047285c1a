#include "core/model_io/json.h"

#include <filesystem>
#include <fstream>
#include <sstream>

#include "core/errors.h"

namespace brushwork {

namespace {

constexpr std::uintmax_t kMaxJsonBytes = 16 << 20;

}  // namespace

JsonFile::JsonFile(std::string path) : path_(std::move(path)) {
  std::error_code error;
  const auto size_bytes = std::filesystem::file_size(path_, error);
  if (error) fail("can't be read (" + error.message() + "); a diffusers-layout model directory has this file");
  if (size_bytes > kMaxJsonBytes) fail("is larger than 16 MiB, so it is no configuration file");
  std::ifstream stream(path_, std::ios::binary);
  std::stringstream text;
  text << stream.rdbuf();
  if (!stream) fail("can't be read");
  value_ = Json::parse(text.str(), nullptr, /*allow_exceptions=*/false);
  if (!value_.is_object()) fail("is no JSON object");
}

void JsonFile::fail(const std::string& what) const { throw Error(ErrorCode::kModelLoadFailed, path_ + ": " + what); }

bool JsonFile::has(const std::string& key) const {
  const auto found = value_.find(key);
  return found != value_.end() && !found->is_null();
}

const Json& JsonFile::at(const std::string& key) const {
  if (!has(key)) fail("has no \"" + key + "\"");
  return value_.at(key);
}

std::string JsonFile::string(const std::string& key) const {
  const Json& found = at(key);
  if (!found.is_string()) fail("\"" + key + "\" must be a string, but is " + found.dump());
  return found.get<std::string>();
}

std::string JsonFile::string(const std::string& key, const std::string& fallback) const {
  return has(key) ? string(key) : fallback;
}

int64_t JsonFile::integer(const std::string& key) const {
  const Json& found = at(key);
  if (!found.is_number_integer()) fail("\"" + key + "\" must be an integer, but is " + found.dump());
  return found.get<int64_t>();
}

int64_t JsonFile::integer(const std::string& key, int64_t fallback) const { return has(key) ? integer(key) : fallback; }

double JsonFile::number(const std::string& key, double fallback) const {
  if (!has(key)) return fallback;
  const Json& found = at(key);
  if (!found.is_number()) fail("\"" + key + "\" must be a number, but is " + found.dump());
  return found.get<double>();
}

bool JsonFile::boolean(const std::string& key, bool fallback) const {
  if (!has(key)) return fallback;
  const Json& found = at(key);
  if (!found.is_boolean()) fail("\"" + key + "\" must be true or false, but is " + found.dump());
  return found.get<bool>();
}

std::vector<std::string> JsonFile::strings(const std::string& key) const {
  const Json& found = at(key);
  std::vector<std::string> result;
  if (!found.is_array()) fail("\"" + key + "\" must be a list, but is " + found.dump());
  for (const Json& item : found) {
    if (!item.is_string()) fail("\"" + key + "\" must hold strings, but is " + found.dump());
    result.push_back(item.get<std::string>());
  }
  return result;
}

std::vector<int64_t> JsonFile::integers(const std::string& key) const {
  const Json& found = at(key);
  std::vector<int64_t> result;
  if (!found.is_array()) fail("\"" + key + "\" must be a list, but is " + found.dump());
  for (const Json& item : found) {
    if (!item.is_number_integer()) fail("\"" + key + "\" must hold integers, but is " + found.dump());
    result.push_back(item.get<int64_t>());
  }
  return result;
}

}  // namespace brushwork
