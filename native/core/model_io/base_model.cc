#include "core/model_io/base_model.h"

#include <filesystem>
#include <iomanip>
#include <map>
#include <memory>
#include <set>
#include <sstream>
#include <vector>

#include "core/errors.h"
#include "core/model/weights.h"
#include "core/model_io/json.h"
#include "core/model_io/safetensors.h"

namespace brushwork {

namespace {

std::string shape_text(torch::IntArrayRef shape) {
  std::ostringstream text;
  text << shape;
  return text.str();
}

// The weights of one component of a model directory, in one file or in several shards.
class FileWeights : public WeightSource {
 public:
  // `change` gets keys with `component` and a dot in front.
  FileWeights(const std::vector<std::string>& paths, std::string component, const ChangeWeight& change)
      : component_(std::move(component)), change_(change) {
    for (const auto& path : paths) {
      files_.push_back(std::make_unique<SafetensorsFile>(path));
      for (const auto& [key, entry] : files_.back()->entries()) {
        if (!file_of_.emplace(key, files_.back().get()).second) fail("holds \"" + key + "\", as another shard does");
      }
    }
  }

  bool contains(const std::string& key) const override { return file_of_.count(key) > 0; }

  torch::Tensor take(const std::string& key, torch::IntArrayRef shape) override {
    const auto file = file_of_.find(key);
    if (file == file_of_.end()) fail("has no weight \"" + key + "\", which its config.json asks for");
    auto found = file->second->tensor(key);
    if (!found.is_floating_point()) fail("holds \"" + key + "\" as integers");
    if (found.sizes() != shape) {
      fail("holds \"" + key + "\" with the shape " + shape_text(found.sizes()) + ", but its config.json asks for " +
           shape_text(shape));
    }
    taken_.insert(key);
    // The caller has copied what it took before. Else both copies of a model would count as this process's memory.
    taken_since_release_bytes_ += found.nbytes();
    if (taken_since_release_bytes_ > kReleaseBytes) {
      for (const auto& opened : files_) opened->release();
      taken_since_release_bytes_ = found.nbytes();
    }
    return change_ ? change_(component_ + "." + key, found) : found;
  }

  // Throws MODEL_LOAD_FAILED when there are weights that nobody took.
  void check_all_taken() const {
    for (const auto& [key, file] : file_of_) {
      // A constant 0 ... 76 that old versions of transformers saved.
      const bool is_constant = key == "text_model.embeddings.position_ids" || key == "embeddings.position_ids";
      if (!is_constant && taken_.count(key) == 0) {
        fail("holds \"" + key + "\", which its config.json does not ask for: this is another architecture");
      }
    }
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw Error(ErrorCode::kModelLoadFailed, files_.back()->path() + " " + what);
  }

  static constexpr size_t kReleaseBytes = size_t{256} << 20;

  std::string component_;
  const ChangeWeight& change_;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::map<std::string, const SafetensorsFile*> file_of_;
  std::set<std::string> taken_;
  size_t taken_since_release_bytes_ = 0;
};

// All shards `<stem>-00001-of-0000N.safetensors` in `directory`, in order; none where one is missing. `stem` includes
// the precision, e.g. `model.fp16`.
std::vector<std::string> find_shards(const std::string& directory, const std::string& stem) {
  constexpr size_t kMaxShards = 1000;
  const auto name = [&](size_t index, size_t count) {
    std::ostringstream text;
    text << directory << '/' << stem << std::setfill('0') << '-' << std::setw(5) << index << "-of-" << std::setw(5)
         << count << ".safetensors";
    return text.str();
  };
  for (size_t count = 1; count <= kMaxShards; ++count) {
    std::vector<std::string> shards;
    while (shards.size() < count && std::filesystem::exists(name(shards.size() + 1, count))) {
      shards.push_back(name(shards.size() + 1, count));
    }
    if (shards.size() == count) return shards;
  }
  return {};
}

// As worker/model-files.ts chooses them: full precision first, one file before shards.
std::vector<std::string> find_weights(const std::string& directory, const std::string& stem) {
  for (const std::string precision : {"", ".fp16"}) {
    const auto path = directory + "/" + stem + precision + ".safetensors";
    if (std::filesystem::exists(path)) return {path};
    const auto shards = find_shards(directory, stem + precision);
    if (!shards.empty()) return shards;
  }
  throw Error(
      ErrorCode::kModelLoadFailed,
      directory + ": has neither " + stem + ".safetensors nor " + stem +
          ".fp16.safetensors, nor all shards of one; download the model's safetensors files (.bin is not read)");
}

// Loads `component` of the model in `directory`; Model and Config are a class of core/model and its configuration.
template <typename Model, typename Config>
Model load_component(const std::string& directory, const std::string& component, const std::string& stem,
                     torch::Device device, torch::Dtype dtype, const ChangeWeight& change) {
  const auto folder = directory + "/" + component;
  const Config config = Config::read(JsonFile(folder + "/config.json"));
  FileWeights source(find_weights(folder, stem), component, change);
  Model model(config, Weights(source, device, dtype));
  source.check_all_taken();
  return model;
}

SchedulerConfig read_scheduler(const JsonFile& file) {
  SchedulerConfig config;
  config.num_train_timesteps = file.integer("num_train_timesteps", 1000);
  config.beta_start = file.number("beta_start", 0.0001);
  config.beta_end = file.number("beta_end", 0.02);
  config.beta_schedule = file.string("beta_schedule", "linear");
  const auto prediction = file.string("prediction_type", "epsilon");
  if (prediction != "epsilon" && prediction != "v_prediction") {
    file.fail("\"prediction_type\" " + prediction + " is not supported (only epsilon and v_prediction are)");
  }
  config.prediction_type = prediction == "epsilon" ? PredictionType::kEpsilon : PredictionType::kVPrediction;
  if (config.beta_schedule != "scaled_linear" && config.beta_schedule != "linear") {
    file.fail("\"beta_schedule\" " + config.beta_schedule + " is not supported (only scaled_linear and linear are)");
  }
  if (file.has("trained_betas")) file.fail("\"trained_betas\" is not supported");
  if (file.boolean("rescale_betas_zero_snr", false)) file.fail("\"rescale_betas_zero_snr\" is not supported");
  if (config.num_train_timesteps < 1 || !(config.beta_start > 0.0) || !(config.beta_end >= config.beta_start) ||
      !(config.beta_end < 1.0)) {
    file.fail("must have at least one timestep and 0 < beta_start <= beta_end < 1");
  }
  return config;
}

}  // namespace

BaseModel load_base_model(const std::string& directory, const BaseModelOptions& options, const ChangeWeight& change) {
  const JsonFile index(directory + "/model_index.json");
  for (const char* part : {"unet", "vae", "text_encoder", "scheduler"}) {
    if (!index.has(part)) {
      index.fail("describes a " + index.string("_class_name", "model") + " without \"" + part +
                 "\"; use a Stable Diffusion 1.x model");
    }
  }
  const torch::NoGradGuard no_grad;
  auto scheduler = read_scheduler(JsonFile(directory + "/scheduler/scheduler_config.json"));
  auto unet = load_component<UNet, UNetConfig>(directory, "unet", "diffusion_pytorch_model", options.device,
                                               options.unet_dtype, change);
  auto vae = load_component<Vae, VaeConfig>(directory, "vae", "diffusion_pytorch_model", options.device,
                                            torch::kFloat32, change);
  auto text = load_component<ClipText, ClipTextConfig>(directory, "text_encoder", "model", options.device,
                                                       torch::kFloat32, change);
  if (text.config().hidden_size != unet.config().cross_attention_dim) {
    throw Error(ErrorCode::kModelLoadFailed, directory +
                                                 ": text_encoder and unet do not belong together (hidden_size " +
                                                 std::to_string(text.config().hidden_size) + ", cross_attention_dim " +
                                                 std::to_string(unet.config().cross_attention_dim) + ")");
  }
  if (vae.config().latent_channels != unet.config().in_channels ||
      unet.config().in_channels != unet.config().out_channels) {
    throw Error(ErrorCode::kModelLoadFailed,
                directory + ": unet takes " + std::to_string(unet.config().in_channels) + " channels and gives " +
                    std::to_string(unet.config().out_channels) + ", but vae has " +
                    std::to_string(vae.config().latent_channels) +
                    "; in-painting and similar models can't be trained, use the plain one");
  }
  return {std::move(unet), std::move(vae), std::move(text), std::move(scheduler)};
}

}  // namespace brushwork
