#include "core/train/checkpoint.h"

#include <charconv>
#include <map>
#include <utility>
#include <vector>

#include "core/errors.h"
#include "core/model_io/json.h"
#include "core/model_io/safetensors.h"

namespace brushwork {

namespace {

using Metadata = std::map<std::string, std::string>;

constexpr const char* kFormatVersion = "1";
constexpr const char* kMicroStepsRun = "micro_steps_run";

// Names, shapes and places of all LoRA modules in 64 bits (FNV-1a), so that a flat tensor is never read with another
// layout than it was written with.
std::string layout_fingerprint(const LoraParameters& lora) {
  uint64_t hash = 0xcbf29ce484222325ULL;
  const auto add = [&hash](const std::string& text) {
    for (const char c : text + "\n") hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  };
  for (int64_t i = 0; i < lora.module_count(); ++i) {
    const auto& target = lora.targets()[static_cast<size_t>(i)];
    add(target.name);
    for (const int64_t number :
         {target.in_features, target.out_features, lora.a(i).storage_offset(), lora.b(i).storage_offset()}) {
      add(std::to_string(number));
    }
  }
  char digits[16];
  const auto end = std::to_chars(digits, digits + sizeof digits, hash, 16).ptr;
  return {digits, end};
}

// What must be the same in file and job.
struct Fact {
  std::string key;
  std::string value;
  // What a file without it says. Not written where it is the value: a job that does without what came later has the
  // checkpoints that it always had.
  std::string when_absent = "none";
};

constexpr const char* kOneSize = "one";

// How many pictures have which size, e.g. "448x576 3, 576x448 9": it decides about the order in which they come.
std::string sizes_text(const TrainingData& data) {
  if (data.sizes.size() == 1) return kOneSize;
  std::string text;
  for (const auto& size : data.sizes) {
    text += (text.empty() ? "" : ", ") + std::to_string(size.width_px) + "x" + std::to_string(size.height_px) + " " +
            std::to_string(size.image_count);
  }
  return text;
}

// The most telling first, since the first difference is the one that is named.
std::vector<Fact> identity(const Trainer& trainer) {
  const auto& config = trainer.config();
  return {{"format_version", kFormatVersion},
          {"seed", std::to_string(config.seed)},
          {"rank", std::to_string(config.rank)},
          {"alpha", Json(config.alpha).dump()},
          {"precision", torch::toString(trainer.compute_dtype())},
          {"image_count", std::to_string(trainer.batches().image_count())},
          {"batch_size", std::to_string(config.batch_size)},
          {"gradient_accumulation", std::to_string(config.gradient_accumulation)},
          {"train_text_encoder", config.train_text_encoder ? "on" : "off", "off"},
          {"lora_layout", layout_fingerprint(trainer.lora())},
          {"optimizer", optimizer_name(config.optimizer), optimizer_name(OptimizerKind::kAdamW)},
          {"ema", config.ema_decay ? "on" : "off", "off"},
          {"sizes", sizes_text(trainer.data()), kOneSize}};
}

[[noreturn]] void refuse(const std::string& file, const std::string& what) {
  throw Error(ErrorCode::kCheckpointIncompatible,
              "The checkpoint " + file + " does not fit this job: " + what +
                  " Use a checkpoint of this very job, or start it anew without one.");
}

int64_t read_count(const std::string& file, const Metadata& metadata, const std::string& key) {
  const auto found = metadata.find(key);
  int64_t count = -1;
  if (found != metadata.end()) {
    const auto& text = found->second;
    const auto result = std::from_chars(text.data(), text.data() + text.size(), count);
    if (result.ptr != text.data() + text.size()) count = -1;
  }
  if (count < 0) refuse(file, "its header has no valid " + key + ".");
  return count;
}

void check_identity(const std::string& file, const Metadata& metadata, const Trainer& trainer) {
  for (const auto& [key, expected, when_absent] : identity(trainer)) {
    const auto found = metadata.find(key);
    const auto actual = found == metadata.end() ? when_absent : found->second;
    if (actual != expected) refuse(file, "its " + key + " is " + actual + ", the job's is " + expected + ".");
  }
}

// The tensors of a state under their names in the file.
template <typename State, typename Visit>
void for_each_tensor(State& state, Visit visit) {
  visit("params", state.params);
  visit("step_count", state.step_count);
  for (auto& [name, tensor] : state.optimizer) visit(name, tensor);
  visit("ema", state.ema);
  visit("gradients", state.gradients);
  visit("loss_scale", state.loss_scale);
  visit("growth_tracker", state.growth_tracker);
}

}  // namespace

void save_checkpoint(const Trainer& trainer, const std::string& file) {
  const auto state = trainer.state();
  std::map<std::string, torch::Tensor> tensors;
  for_each_tensor(state, [&](const std::string& name, const torch::Tensor& tensor) {
    if (tensor.defined()) tensors.emplace(name, tensor);
  });
  Metadata metadata;
  for (const auto& [key, value, when_absent] : identity(trainer)) {
    if (value != when_absent) metadata.emplace(key, value);
  }
  metadata.emplace(kMicroStepsRun, std::to_string(state.micro_steps_run));
  const auto position = trainer.position();
  metadata.emplace("epochs_run", std::to_string(position.epochs_run));
  metadata.emplace("optimizer_steps_run", std::to_string(position.optimizer_steps_run));
  write_safetensors(file, tensors, metadata);
}

void restore_checkpoint(Trainer& trainer, const std::string& file) {
  const SafetensorsFile opened(file, ErrorCode::kCheckpointIncompatible);
  check_identity(file, opened.metadata(), trainer);
  const int64_t micro_steps_run = read_count(file, opened.metadata(), kMicroStepsRun);
  // The shape of the state at that step, from which the file must not differ.
  auto state = trainer.state_layout(micro_steps_run);
  for_each_tensor(state, [&](const std::string& name, torch::Tensor& tensor) {
    if (!tensor.defined()) return;
    if (!opened.contains(name)) refuse(file, "it has no tensor " + name + ".");
    const auto read = opened.tensor(name);
    if (read.sizes() != tensor.sizes() || read.scalar_type() != tensor.scalar_type()) {
      refuse(file, "its tensor " + name + " has another shape or type.");
    }
    tensor = read;
  });
  trainer.set_state(state);
}

}  // namespace brushwork
