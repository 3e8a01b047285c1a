// Defines: ModelChoice, SyntheticJob (what the commands of the plain program are asked to do, and on what data).
#pragma once

#include <string>
#include <vector>

#include "cli/options.h"
#include "core/model_io/lora_import.h"
#include "core/train/trainer.h"

namespace brushwork::cli {

// Which base model, and how it is held.
struct ModelChoice {
  std::string directory;
  std::string precision;  // no, fp16 or bf16
  torch::Device device;
};

// Reads --model, --precision, --device and --kernels, and sets the number of threads (--threads). Throws
// INVALID_REQUEST for a device that this machine or build lacks.
ModelChoice read_model_choice(Options& options);

// Throws INVALID_REQUEST for an unknown precision, and what `load_base_model` throws.
BaseModel load_model(const ModelChoice& choice);
// The same with the LoRA at `lora_path`; throws what `load_base_model_with_lora` throws as well.
ModelWithLora load_model_with_lora(const ModelChoice& choice, const std::string& lora_path);

// A job of pictures made by a formula.
struct SyntheticJob {
  ModelChoice model;
  int64_t size_px;
  int64_t image_count;
  TrainingConfig config;
};

// Reads the model's options and those of the job. Throws INVALID_REQUEST for a value that is none.
SyntheticJob read_job(Options& options, int64_t default_epochs);

// Picture i, named 100000 + i: byte k of its RGB rows is (k (i + 3) + 5 (k / 512)) mod 256; id k of its caption is
// (37 i + 11 k) modulo the vocabulary.
std::vector<TrainingImage> make_images(const SyntheticJob& job, const BaseModel& model);

// An empty caption of the same kind: the last id of the vocabulary throughout.
std::vector<int32_t> make_empty_caption(const BaseModel& model);

}  // namespace brushwork::cli
