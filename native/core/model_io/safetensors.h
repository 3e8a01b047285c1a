// The safetensors format (https://github.com/huggingface/safetensors, README.md "Format"): an 8-byte little-endian
// header length, a JSON header, then the tensors' bytes.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/errors.h"
#include "core/torch.h"

namespace brushwork {

// A file opened for reading. The file is mapped into memory, checked as a whole before the first tensor is handed out,
// and stays mapped as long as this object or one of its tensors lives.
class SafetensorsFile {
 public:
  struct Entry {
    torch::Dtype dtype;
    std::vector<int64_t> shape;
    uint64_t begin_bytes;  // within the data part
    uint64_t end_bytes;
  };

  // Opens and checks `path`. Every defect is an Error with `error_code` (MODEL_LOAD_FAILED for models, another one for
  // checkpoints): unreadable file, header above 100 MB, no JSON object, unknown dtype, shape that does not match the
  // byte count, offsets that overlap, leave holes or leave the file.
  explicit SafetensorsFile(const std::string& path, ErrorCode error_code = ErrorCode::kModelLoadFailed);

  const std::string& path() const { return path_; }
  // All tensors by name.
  const std::map<std::string, Entry>& entries() const { return entries_; }
  // The strings of `__metadata__`; empty where the file has none.
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  bool contains(const std::string& name) const { return entries_.count(name) > 0; }

  // A CPU tensor over the mapped bytes (no copy; private to this process, so writing to it does not touch the file).
  // Throws `error_code` for an unknown name.
  torch::Tensor tensor(const std::string& name) const;
  // Gives the memory of the mapped bytes back to the system; whoever reads a tensor again brings them in again. What
  // was written to a tensor is lost.
  void release() const;

 private:
  struct Mapping;

  void parse(const std::string& header, uint64_t data_bytes);
  [[noreturn]] void fail(const std::string& what) const;

  std::string path_;
  ErrorCode error_code_;
  std::map<std::string, Entry> entries_;
  std::map<std::string, std::string> metadata_;
  std::shared_ptr<Mapping> mapping_;
  uint64_t data_offset_bytes_ = 0;
};

// Writes tensors of any device, the same bytes for the same input (widest types first, then by name). The file
// appears under `path` only when it is complete: a temporary file in the same directory is synced and renamed.
// Throws INTERNAL when the disk refuses, INVALID_REQUEST for a dtype that the format does not have.
void write_safetensors(const std::string& path, const std::map<std::string, torch::Tensor>& tensors,
                       const std::map<std::string, std::string>& metadata = {});

// Writes `bytes` to `path` by the same temporary file, sync and rename. Throws INTERNAL when the disk refuses.
void write_file_atomically(const std::string& path, const std::string& bytes);

}  // namespace brushwork
