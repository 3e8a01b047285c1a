#include <chrono>
#include <cstdio>
#include <fstream>
#include <map>
#include <optional>
#include <utility>

#include "cli/commands.h"
#include "cli/job.h"
#include "core/errors.h"
#include "core/lora/lora_step.h"
#include "core/model_io/json.h"
#include "core/model_io/safetensors.h"

namespace brushwork::cli {

namespace {

// A figure in MiB of this process by the kernel's account: VmHWM (the most so far) or RssAnon (own memory now).
double memory_mib(const std::string& name) {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    double kib = 0;
    if (word == name + ":" && status >> kib) return kib / 1024;
  }
  throw Error(ErrorCode::kInternal, "/proc/self/status has no " + name);
}

// What of the inputs is there is run, each with its time.
class Passes {
 public:
  Passes(const BaseModel& model, const SafetensorsFile& inputs, const std::optional<LoraParameters>& lora)
      : model_(model), inputs_(inputs), lora_(lora) {}

  void run() {
    if (inputs_.contains("token_ids")) {
      time("text_encoder", [&] { keep("text_encoder", model_.text_encoder.encode(input("token_ids"))); });
    }
    if (inputs_.contains("pixels")) {
      time("vae_encode", [&] {
        const auto posterior = model_.vae.encode(input("pixels"));
        keep("vae.mean", posterior.mean);
        keep("vae.std", posterior.std);
      });
    }
    if (inputs_.contains("latents")) {
      time("vae_decode", [&] { keep("vae.decoded", model_.vae.decode(input("latents"))); });
    }
    if (inputs_.contains("sample")) time("unet", [&] { keep("unet", predict()); });
  }

  const std::map<std::string, torch::Tensor>& outputs() const { return outputs_; }
  const Json& seconds() const { return seconds_; }

 private:
  torch::Tensor input(const std::string& name) const { return inputs_.tensor(name).to(model_.unet.device()); }

  torch::Tensor predict() const {
    const UNet& unet = model_.unet;
    std::optional<LoraStep> step;
    if (lora_) step.emplace(*lora_, unet.dtype());
    return unet.forward(input("sample"), input("timesteps"), unet.prepare_text(input("text")), step ? &*step : nullptr);
  }

  void keep(const std::string& name, const torch::Tensor& output) { outputs_[name] = output.cpu().contiguous(); }

  template <typename Work>
  void time(const char* name, Work work) {
    const auto start = std::chrono::steady_clock::now();
    work();
    seconds_[name] = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }

  const BaseModel& model_;
  const SafetensorsFile& inputs_;
  const std::optional<LoraParameters>& lora_;
  std::map<std::string, torch::Tensor> outputs_;
  Json seconds_ = Json::object();
};

}  // namespace

void forward(Options& options) {
  const auto choice = read_model_choice(options);
  const auto inputs_file = options.string("inputs");
  const auto output_file = options.string("output");
  const auto lora_path = options.string("lora", "");
  options.check_all_used();

  const torch::NoGradGuard no_grad;
  const SafetensorsFile inputs(inputs_file);
  const double before_mib = memory_mib("RssAnon");
  const auto start = std::chrono::steady_clock::now();
  std::optional<LoraParameters> lora;
  const auto model = [&] {
    if (lora_path.empty()) return load_model(choice);
    auto loaded = load_model_with_lora(choice, lora_path);
    lora.emplace(std::move(loaded.lora));
    return std::move(loaded.model);
  }();
  Json result = {{"load_s", std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count()},
                 {"own_memory_after_load_mib", memory_mib("RssAnon") - before_mib},
                 {"peak_rss_after_load_mib", memory_mib("VmHWM")}};
  Passes passes(model, inputs, lora);
  passes.run();
  write_safetensors(output_file, passes.outputs());
  result["seconds"] = passes.seconds();
  result["peak_rss_mib"] = memory_mib("VmHWM");
  std::printf("%s\n", result.dump().c_str());
}

}  // namespace brushwork::cli
