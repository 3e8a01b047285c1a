#include "core/model_io/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <limits>
#include <set>

#include "core/model_io/json.h"

namespace brushwork {

namespace {

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own cap
constexpr size_t kLengthBytes = 8;

struct DtypeName {
  const char* name;
  torch::Dtype dtype;
};
constexpr std::array<DtypeName, 10> kDtypes = {{{"F64", torch::kFloat64},
                                                {"F32", torch::kFloat32},
                                                {"F16", torch::kFloat16},
                                                {"BF16", torch::kBFloat16},
                                                {"I64", torch::kInt64},
                                                {"I32", torch::kInt32},
                                                {"I16", torch::kInt16},
                                                {"I8", torch::kInt8},
                                                {"U8", torch::kUInt8},
                                                {"BOOL", torch::kBool}}};

uint64_t item_bytes(torch::Dtype dtype) { return c10::elementSize(dtype); }

// Closes a descriptor when it goes out of scope.
struct Descriptor {
  int fd;
  explicit Descriptor(int descriptor) : fd(descriptor) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

}  // namespace

struct SafetensorsFile::Mapping {
  void* data = MAP_FAILED;
  uint64_t size_bytes = 0;

  Mapping() = default;
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping() {
    if (data != MAP_FAILED) ::munmap(data, size_bytes);
  }
  char* bytes() const { return static_cast<char*>(data); }
};

SafetensorsFile::SafetensorsFile(const std::string& path, ErrorCode error_code)
    : path_(path), error_code_(error_code), mapping_(std::make_shared<Mapping>()) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat info{};
  if (file.fd < 0 || ::fstat(file.fd, &info) != 0) fail(std::string("can't be opened: ") + std::strerror(errno));
  if (!S_ISREG(info.st_mode)) fail("is no regular file");
  mapping_->size_bytes = static_cast<uint64_t>(info.st_size);
  if (mapping_->size_bytes < kLengthBytes) fail("is too short to be a safetensors file; it was cut off, get it again");
  // Private and writable, so that a tensor over it may be changed without touching the file.
  mapping_->data = ::mmap(nullptr, mapping_->size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE, file.fd, 0);
  if (mapping_->data == MAP_FAILED) fail(std::string("can't be mapped: ") + std::strerror(errno));

  uint64_t header_bytes = 0;
  for (size_t i = kLengthBytes; i-- > 0;) {
    header_bytes = header_bytes << 8 | static_cast<unsigned char>(mapping_->bytes()[i]);
  }
  if (header_bytes > kMaxHeaderBytes) fail("its header would be larger than 100 MB, so it is no safetensors file");
  if (header_bytes > mapping_->size_bytes - kLengthBytes) fail("ends within its header; it was cut off, get it again");
  data_offset_bytes_ = kLengthBytes + header_bytes;
  parse(std::string(mapping_->bytes() + kLengthBytes, header_bytes), mapping_->size_bytes - data_offset_bytes_);
}

void SafetensorsFile::release() const { ::madvise(mapping_->data, mapping_->size_bytes, MADV_DONTNEED); }

void SafetensorsFile::fail(const std::string& what) const { throw Error(error_code_, path_ + ": " + what); }

void SafetensorsFile::parse(const std::string& header, uint64_t data_bytes) {
  std::set<std::string> seen;
  std::string duplicate;
  const auto watch_keys = [&](int depth, Json::parse_event_t event, Json& parsed) {
    if (event == Json::parse_event_t::key && depth == 1 && !seen.insert(parsed.get<std::string>()).second) {
      duplicate = parsed.get<std::string>();
    }
    return true;
  };
  const Json json = header.empty() || header[0] != '{' ? Json() : Json::parse(header, watch_keys, false);
  if (!json.is_object()) fail("its header is no JSON object, so it is no safetensors file or is damaged");
  if (!duplicate.empty()) fail("lists \"" + duplicate + "\" twice");

  for (const auto& [name, value] : json.items()) {
    if (name == "__metadata__") {
      if (!value.is_object()) fail("\"__metadata__\" is no object");
      for (const auto& [key, text] : value.items()) {
        if (!text.is_string()) fail("\"__metadata__\" holds something else than strings at \"" + key + "\"");
        metadata_[key] = text.get<std::string>();
      }
      continue;
    }
    const auto unsigned_list = [](const Json& list) {
      return list.is_array() && std::all_of(list.begin(), list.end(), [](const Json& n) {
               return n.is_number_unsigned() &&
                      n.get<uint64_t>() <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
             });
    };
    if (!value.is_object() || !value.contains("dtype") || !value["dtype"].is_string() || !value.contains("shape") ||
        !unsigned_list(value["shape"]) || !value.contains("data_offsets") || !unsigned_list(value["data_offsets"]) ||
        value["data_offsets"].size() != 2) {
      fail("the entry of \"" + name + "\" must have dtype, shape and two data_offsets");
    }
    const auto dtype_name = value["dtype"].get<std::string>();
    const auto dtype = std::find_if(kDtypes.begin(), kDtypes.end(),
                                    [&](const DtypeName& candidate) { return candidate.name == dtype_name; });
    if (dtype == kDtypes.end()) fail("\"" + name + "\" has the dtype " + dtype_name + ", which is not supported");

    Entry entry{dtype->dtype, value["shape"].get<std::vector<int64_t>>(), value["data_offsets"][0].get<uint64_t>(),
                value["data_offsets"][1].get<uint64_t>()};
    if (entry.begin_bytes > entry.end_bytes || entry.end_bytes > data_bytes) {
      fail("\"" + name + "\" lies outside the file; it was cut off or is damaged, get it again");
    }
    // Sides of 0 count as 1 here: a tensor without elements has strides too, and they may not overflow either.
    auto product_bytes = static_cast<int64_t>(item_bytes(entry.dtype));
    for (const int64_t side : entry.shape) {
      if (__builtin_mul_overflow(product_bytes, std::max<int64_t>(side, 1), &product_bytes)) {
        fail("\"" + name + "\" has a shape that no file could hold");
      }
    }
    const bool is_empty = std::count(entry.shape.begin(), entry.shape.end(), 0) > 0;
    const uint64_t expected_bytes = is_empty ? 0 : static_cast<uint64_t>(product_bytes);
    if (expected_bytes != entry.end_bytes - entry.begin_bytes) {
      fail("\"" + name + "\" has " + std::to_string(entry.end_bytes - entry.begin_bytes) +
           " bytes, but its shape needs " + std::to_string(expected_bytes));
    }
    entries_.emplace(name, std::move(entry));
  }

  std::vector<std::pair<uint64_t, uint64_t>> ranges;
  for (const auto& [name, entry] : entries_) ranges.emplace_back(entry.begin_bytes, entry.end_bytes);
  std::sort(ranges.begin(), ranges.end());
  uint64_t position = 0;
  for (const auto& [begin, end] : ranges) {
    if (begin < position) fail("two tensors overlap at byte " + std::to_string(begin) + " of its data");
    if (begin > position) fail("its data has a hole at byte " + std::to_string(position));
    position = end;
  }
  if (position != data_bytes) fail("has " + std::to_string(data_bytes - position) + " bytes that belong to no tensor");
}

torch::Tensor SafetensorsFile::tensor(const std::string& name) const {
  const auto found = entries_.find(name);
  if (found == entries_.end()) fail("has no tensor \"" + name + "\"");
  const Entry& entry = found->second;
  char* const data = mapping_->bytes() + data_offset_bytes_ + entry.begin_bytes;
  // Files whose header was not padded have tensors at odd addresses, which no kernel may read.
  const uint64_t size_bytes = entry.end_bytes - entry.begin_bytes;
  if (size_bytes > 0 && reinterpret_cast<uintptr_t>(data) % item_bytes(entry.dtype) != 0) {
    auto copy = torch::empty(entry.shape, torch::dtype(entry.dtype));
    std::memcpy(copy.mutable_data_ptr(), data, size_bytes);
    return copy;
  }
  return torch::from_blob(data, entry.shape, [keep = mapping_](void*) {}, torch::dtype(entry.dtype));
}

namespace {

// A file that appears under its name only when `commit` was called.
class AtomicFile {
 public:
  explicit AtomicFile(std::string path) : path_(std::move(path)), temporary_(temporary_name(path_)) {
    fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd_ < 0) fail("create", temporary_);
  }
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  ~AtomicFile() {
    if (fd_ >= 0) ::close(fd_);
    if (!is_committed_) ::unlink(temporary_.c_str());
  }

  void write(const void* data, uint64_t size_bytes) {
    const char* position = static_cast<const char*>(data);
    while (size_bytes > 0) {
      const ssize_t written = ::write(fd_, position, std::min<uint64_t>(size_bytes, 1 << 30));
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) fail("write", temporary_);
      position += written;
      size_bytes -= static_cast<uint64_t>(written);
    }
  }

  void commit() {
    if (::fsync(fd_) != 0) fail("sync", temporary_);
    const int closed = ::close(std::exchange(fd_, -1));
    if (closed != 0) fail("close", temporary_);
    if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail("rename to", path_);
    is_committed_ = true;
    // The rename itself is durable only once the directory is.
    auto directory = std::filesystem::path(path_).parent_path().string();
    if (directory.empty()) directory = ".";
    const Descriptor handle(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (handle.fd < 0 || ::fsync(handle.fd) != 0) fail("sync", directory);
  }

 private:
  static std::string temporary_name(const std::string& path) {
    static std::atomic<uint64_t> counter{0};
    return path + ".tmp-" + std::to_string(::getpid()) + "-" + std::to_string(counter++);
  }
  [[noreturn]] static void fail(const char* verb, const std::string& path) {
    throw Error(ErrorCode::kInternal, std::string("can't ") + verb + " " + path + ": " + std::strerror(errno) +
                                          "; check the disk's free space and permissions");
  }

  std::string path_;
  std::string temporary_;
  int fd_ = -1;
  bool is_committed_ = false;
};

}  // namespace

void write_safetensors(const std::string& path, const std::map<std::string, torch::Tensor>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  // Widest types first, then by name, as the format's own writer does: so that every tensor is aligned.
  std::vector<std::pair<std::string, torch::Tensor>> ordered;
  for (const auto& [name, tensor] : tensors) ordered.emplace_back(name, tensor.detach().cpu().contiguous());
  std::stable_sort(ordered.begin(), ordered.end(),
                   [](const auto& a, const auto& b) { return a.second.itemsize() > b.second.itemsize(); });

  Json header = Json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t position = 0;
  for (const auto& [name, tensor] : ordered) {
    const auto dtype =
        std::find_if(kDtypes.begin(), kDtypes.end(),
                     [t = tensor.scalar_type()](const DtypeName& candidate) { return candidate.dtype == t; });
    if (dtype == kDtypes.end()) {
      throw Error(ErrorCode::kInvalidRequest, "\"" + name + "\" has a type that safetensors files can't hold");
    }
    header[name] = {{"dtype", dtype->name},
                    {"shape", tensor.sizes().vec()},
                    {"data_offsets", {position, position + tensor.nbytes()}}};
    position += tensor.nbytes();
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  std::array<char, kLengthBytes> length;
  for (size_t i = 0; i < kLengthBytes; ++i) length[i] = static_cast<char>(text.size() >> (8 * i));

  AtomicFile file(path);
  file.write(length.data(), length.size());
  file.write(text.data(), text.size());
  for (const auto& [name, tensor] : ordered) file.write(tensor.const_data_ptr(), tensor.nbytes());
  file.commit();
}

void write_file_atomically(const std::string& path, const std::string& bytes) {
  AtomicFile file(path);
  file.write(bytes.data(), bytes.size());
  file.commit();
}

}  // namespace brushwork
