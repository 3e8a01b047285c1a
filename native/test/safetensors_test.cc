#include "core/model_io/safetensors.h"

#include <filesystem>
#include <fstream>

#include "check.h"
#include "golden.h"

using namespace brushwork;
using namespace brushwork::test;

namespace {

// The first eight bytes of a file.
std::string length_bytes(uint64_t header_bytes) {
  std::string text;
  for (int i = 0; i < 8; ++i) text.push_back(static_cast<char>(header_bytes >> (8 * i)));
  return text;
}

// Writes a file with this header and data and opens it.
SafetensorsFile open_bytes(const std::string& header, const std::string& data, uint64_t header_bytes) {
  const TemporaryDirectory directory;
  write_file_atomically(directory / "file.safetensors", length_bytes(header_bytes) + header + data);
  return SafetensorsFile(directory / "file.safetensors");
}

SafetensorsFile open_header(const std::string& header, const std::string& data = "") {
  return open_bytes(header, data, header.size());
}

constexpr auto kCode = ErrorCode::kModelLoadFailed;

}  // namespace

TEST(round_trip_of_every_type) {
  const TemporaryDirectory directory;
  const std::vector<torch::Dtype> types = {torch::kFloat64, torch::kFloat32, torch::kFloat16, torch::kBFloat16,
                                           torch::kInt64,   torch::kInt32,   torch::kInt16,   torch::kInt8,
                                           torch::kUInt8,   torch::kBool};
  std::map<std::string, torch::Tensor> tensors;
  for (const auto type : types) {
    tensors["of " + std::string(c10::toString(type))] = torch::arange(15).reshape({3, 5}).remainder(2).to(type);
  }
  tensors["scalar"] = torch::tensor(2.5);
  tensors["empty"] = torch::zeros({0, 3});
  tensors["transposed"] = torch::arange(6).reshape({2, 3}).t();
  const std::map<std::string, std::string> metadata = {{"format", "pt"}, {"alpha", "\"quoted\" Umlaut \xc3\xbc"}};
  write_safetensors(directory / "a.safetensors", tensors, metadata);
  const SafetensorsFile file(directory / "a.safetensors");
  CHECK(file.entries().size() == tensors.size());
  CHECK(file.metadata() == metadata);
  for (const auto& [name, tensor] : tensors) {
    CHECK(file.tensor(name).scalar_type() == tensor.scalar_type());
    CHECK(torch::equal(file.tensor(name), tensor));
  }
}

TEST(same_tensors_give_the_same_bytes_and_leave_no_other_file) {
  const TemporaryDirectory directory;
  const std::map<std::string, torch::Tensor> tensors = {{"b", torch::ones({3})},
                                                        {"a", torch::zeros({2}, torch::kInt64)}};
  write_safetensors(directory / "1", tensors);
  write_safetensors(directory / "2", tensors);
  CHECK(read_file(directory / "1") == read_file(directory / "2"));
  CHECK(read_file(directory / "1").size() % 4 == 0);
  CHECK(std::distance(std::filesystem::directory_iterator(directory.path()), {}) == 2);
}

TEST(python_files_are_read) {
  const auto file = golden_tensors("tiny_forward.safetensors");
  CHECK((file.entries().at("unet").shape == std::vector<int64_t>{2, 4, 16, 16}));
  CHECK(file.tensor("unet").isfinite().all().item<bool>());
}

TEST(tensors_outlive_the_file_and_writing_to_them_does_not_touch_it) {
  const TemporaryDirectory directory;
  write_safetensors(directory / "a", {{"x", torch::ones({1000})}});
  torch::Tensor tensor;
  {
    const SafetensorsFile file(directory / "a");
    tensor = file.tensor("x");
  }
  tensor.mul_(3);
  CHECK(tensor.sum().item<float>() == 3000.0f);
  CHECK(SafetensorsFile(directory / "a").tensor("x").sum().item<float>() == 1000.0f);
}

TEST(a_released_file_is_read_again) {
  const TemporaryDirectory directory;
  write_safetensors(directory / "a", {{"x", torch::arange(100'000)}});
  const SafetensorsFile file(directory / "a");
  const auto tensor = file.tensor("x");
  CHECK(tensor.equal(torch::arange(100'000)));
  file.release();
  CHECK(tensor.equal(torch::arange(100'000)));
  // What was written is gone, so the bytes did come from the file.
  tensor.zero_();
  file.release();
  CHECK(tensor.equal(torch::arange(100'000)));
}

TEST(tensors_at_odd_addresses_are_read) {
  const std::string header = R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}} )";  // 55 bytes
  CHECK(open_header(header, std::string("\0\0\x80\x3f", 4)).tensor("x").item<float>() == 1.0f);
}

TEST(a_failed_write_leaves_the_old_file) {
  const TemporaryDirectory directory;
  write_file_atomically(directory / "a", "old");
  CHECK_ERROR(write_safetensors(directory / "a", {{"x", torch::zeros({1}, torch::kComplexFloat)}}),
              ErrorCode::kInvalidRequest, "can't hold");
  CHECK_ERROR(write_file_atomically(directory / "missing/a", "new"), ErrorCode::kInternal, "can't create");
  CHECK(read_file(directory / "a") == "old");
  CHECK(std::distance(std::filesystem::directory_iterator(directory.path()), {}) == 1);
}

TEST(missing_file) { CHECK_ERROR(SafetensorsFile("/nowhere/x.safetensors"), kCode, "can't be opened"); }

TEST(directory_instead_of_file) {
  const TemporaryDirectory directory;
  CHECK_ERROR(SafetensorsFile(directory.path()), kCode, "no regular file");
}

TEST(the_caller_names_the_error_code) {
  CHECK_ERROR(SafetensorsFile("/nowhere/x", ErrorCode::kCheckpointIncompatible), ErrorCode::kCheckpointIncompatible,
              "/nowhere/x");
}

TEST(file_shorter_than_its_length_field) {
  const TemporaryDirectory directory;
  write_file_atomically(directory / "a", "1234567");
  CHECK_ERROR(SafetensorsFile(directory / "a"), kCode, "too short");
}

TEST(header_longer_than_the_cap) { CHECK_ERROR(open_bytes("{}", "", 100'000'001), kCode, "larger than 100 MB"); }

TEST(header_longer_than_the_file) { CHECK_ERROR(open_bytes("{}", "", 3), kCode, "ends within its header"); }

TEST(header_that_is_no_json) { CHECK_ERROR(open_header("{\"a\": "), kCode, "no JSON object"); }

TEST(header_that_is_no_object) { CHECK_ERROR(open_header("[1]"), kCode, "no JSON object"); }

TEST(header_that_does_not_begin_with_a_brace) { CHECK_ERROR(open_header(" {}"), kCode, "no JSON object"); }

TEST(name_listed_twice) {
  CHECK_ERROR(open_header(R"({"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                          R"("x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
                          "1"),
              kCode, "lists \"x\" twice");
}

TEST(metadata_that_is_no_object) {
  CHECK_ERROR(open_header(R"({"__metadata__":[]})"), kCode, "\"__metadata__\" is no");
}

TEST(metadata_that_is_no_string) {
  CHECK_ERROR(open_header(R"({"__metadata__":{"epoch":1}})"), kCode, "something else than strings at \"epoch\"");
}

TEST(entry_without_offsets) {
  CHECK_ERROR(open_header(R"({"x":{"dtype":"U8","shape":[1]}})"), kCode, "entry of \"x\"");
}

TEST(entry_with_a_negative_side) {
  CHECK_ERROR(open_header(R"({"x":{"dtype":"U8","shape":[-1],"data_offsets":[0,0]}})"), kCode, "entry of \"x\"");
}

TEST(unknown_dtype) {
  CHECK_ERROR(open_header(R"({"x":{"dtype":"F4","shape":[1],"data_offsets":[0,1]}})", "1"), kCode, "dtype F4");
}

TEST(shape_that_needs_other_bytes) {
  CHECK_ERROR(open_header(R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", "1234"), kCode,
              "has 4 bytes, but its shape needs 8");
}

TEST(shape_that_overflows) {
  CHECK_ERROR(
      open_header(R"({"x":{"dtype":"F32","shape":[4611686018427387904,4611686018427387904],"data_offsets":[0,0]}})"),
      kCode, "no file could hold");
}

TEST(shape_without_elements_whose_strides_overflow) {
  for (const std::string shape : {"[0,4611686018427387904,4611686018427387904]", "[0,9223372036854775807,2]"}) {
    CHECK_ERROR(open_header(R"({"x":{"dtype":"U8","shape":)" + shape + R"(,"data_offsets":[0,0]}})").tensor("x"), kCode,
                "no file could hold");
  }
}

TEST(offsets_outside_the_file) {
  CHECK_ERROR(open_header(R"({"x":{"dtype":"U8","shape":[5],"data_offsets":[0,5]}})", "1234"), kCode,
              "outside the file");
}

TEST(offsets_that_run_backwards) {
  CHECK_ERROR(open_header(R"({"x":{"dtype":"U8","shape":[1],"data_offsets":[2,1]}})", "1234"), kCode,
              "outside the file");
}

TEST(tensors_that_overlap) {
  CHECK_ERROR(open_header(R"({"x":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                          R"("y":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
                          "123"),
              kCode, "overlap at byte 1");
}

TEST(hole_between_tensors) {
  CHECK_ERROR(open_header(R"({"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                          R"("y":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}})",
                          "123"),
              kCode, "hole at byte 1");
}

TEST(bytes_after_the_last_tensor) {
  CHECK_ERROR(open_header(R"({"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", "123"), kCode,
              "2 bytes that belong to no tensor");
}

namespace {

// Draws what happens to a file, the same in every run.
class Damage {
 public:
  explicit Damage(uint64_t seed) : seed_(seed) {}

  uint64_t below(uint64_t limit) { return mix64(seed_++) % limit; }

  // One of: a byte changed, inserted or left out, two places swapped, a piece doubled, a number changed, the end cut.
  void strike(std::string& bytes) {
    const auto place = below(bytes.size()), other = below(bytes.size());
    const auto length = 1 + below(16);
    switch (below(7)) {
      case 0:
        bytes[place] = static_cast<char>(below(256));
        break;
      case 1:
        bytes.insert(place, 1, static_cast<char>(below(256)));
        break;
      case 2:
        bytes.erase(place, length);
        break;
      case 3:
        std::swap(bytes[place], bytes[other]);
        break;
      case 4:
        bytes.insert(place, bytes.substr(other, length));
        break;
      case 5:
        strike_number(bytes, place);
        break;
      default:
        bytes.resize(place);
        break;
    }
  }

 private:
  // Puts a number with which sums and products overflow in the place of the next one.
  void strike_number(std::string& bytes, uint64_t place) {
    constexpr const char* kNumbers[] = {
        "0",   "-1",         "1e3",        "4294967296",          "9223372036854775807",
        "1.5", "2147483648", "4611686018", "4611686018427387904", "18446744073709551615"};
    const auto begin = bytes.find_first_of("0123456789", place);
    if (begin == std::string::npos) return;
    const auto end = bytes.find_first_not_of("0123456789", begin);
    bytes.replace(begin, (end == std::string::npos ? bytes.size() : end) - begin, kNumbers[below(std::size(kNumbers))]);
  }

  uint64_t seed_;
};

// Opens a damaged file and reads all of it; returns whether it was refused, in our own words.
bool is_refused(const std::string& path) {
  try {
    const SafetensorsFile file(path);
    for (const auto& entry : file.entries()) file.tensor(entry.first).sum();
    return false;
  } catch (const Error& error) {
    CHECK(error.code() == kCode && std::string(error.what()).rfind(path + ": ", 0) == 0);
    return true;
  }
}

}  // namespace

TEST(damaged_files_are_refused_or_read_but_never_crash) {
  const TemporaryDirectory directory;
  const auto path = directory / "file.safetensors";
  write_safetensors(path,
                    {{"half", torch::ones({3, 5}, torch::kFloat16)},
                     {"weight", torch::ones({2, 3, 1, 1})},
                     {"scalar", torch::tensor(2.5)},
                     {"empty", torch::zeros({0, 3})},
                     {"flags", torch::ones({3}, torch::kBool)}},
                    {{"format", "pt"}});
  const auto valid = read_file(path);
  // Of half, weight, scalar and flags.
  constexpr size_t kDataBytes = 30 + 24 + 4 + 3;
  const auto header = valid.substr(8, valid.size() - 8 - kDataBytes), data = valid.substr(valid.size() - kDataBytes);
  CHECK(!is_refused(path));
  constexpr int kCount = 6000;
  Damage damage(1);
  int refused = 0;
  for (int i = 0; i < kCount; ++i) {
    auto bytes = valid;
    if (i % 2 == 0) {
      damage.strike(bytes);
    } else {
      // The header alone, under its right length: else that would be all that is found wrong.
      auto struck = header;
      for (auto strikes = 1 + damage.below(3); strikes > 0 && !struck.empty(); --strikes) damage.strike(struck);
      bytes = length_bytes(struck.size()) + struck + data;
    }
    std::ofstream(path, std::ios::binary) << bytes;
    refused += is_refused(path) ? 1 : 0;
  }
  std::printf("# %d of %d refused\n", refused, kCount);
  // Most damage is seen; bytes of a tensor may have any value.
  CHECK(refused > kCount / 2 && refused < kCount);
}

TEST(unknown_tensor) { CHECK_ERROR(open_header("{}").tensor("x"), kCode, "has no tensor \"x\""); }

TEST_MAIN()
