// The training core as a plain program, for benchmarks and GPU checks on machines without Node.
#include <cstdio>
#include <cstring>
#include <exception>

#include "cli/commands.h"
#include "core/describe_failure.h"

namespace {

constexpr const char* kUsage =
    "Usage: brushwork-native <command> [--option value]…\n"
    "\n"
    "  make-base-model  --directory DIR [--preset tiny|small] [--seed N]\n"
    "  bench            --model DIR [--steps 30] [--warmup 5] [job options]\n"
    "  forward          --model DIR --inputs FILE --output FILE [--lora PATH] [model options]\n"
    "  train-synthetic  --model DIR --output DIR [--restore CHECKPOINT] [--gradients FILE] [job options]\n"
    "\n"
    "model options: --device cpu|cuda --threads N --precision no|fp16|bf16 --kernels repeatable|fastest\n"
    "job options: model options, --size PX --images N --seed N --rank N --alpha X --dropout X --epochs N --batch N\n"
    "             --accumulation N --max-grad-norm X --optimizer adamw|lion|prodigy --learning-rate X --weight-decay "
    "X\n"
    "             --lr-scheduler constant|linear|cosine --lr-warmup-steps N --min-snr-gamma X --noise-offset X\n"
    "             --ema-decay X --flip 0|1 --caption-dropout X --train-text-encoder 0|1\n"
    "             --text-encoder-learning-rate X --repeats N --gradient-checkpointing 0|1\n"
    "inputs of forward, each optional: token_ids (B, 77), pixels (B, 3, H, W), latents (B, 4, h, w), and sample\n"
    "             (B, 4, h, w) with timesteps (B) and text (B, 77, width)\n";

struct Command {
  const char* name;
  void (*run)(brushwork::cli::Options&);
};

constexpr Command kCommands[] = {{"make-base-model", brushwork::cli::make_base_model},
                                 {"bench", brushwork::cli::bench},
                                 {"forward", brushwork::cli::forward},
                                 {"train-synthetic", brushwork::cli::train_synthetic}};

}  // namespace

int main(int argc, char** argv) {
  constexpr int kUsageFault = 2;
  try {
    for (const auto& command : kCommands) {
      if (argc < 2 || std::strcmp(argv[1], command.name) != 0) continue;
      brushwork::cli::Options options(argc, argv, 2);
      command.run(options);
      return 0;
    }
  } catch (const std::exception& failure) {
    const auto error = brushwork::describe_failure(failure);
    std::fprintf(stderr, "%s: %s\n", error.code_name(), error.what());
    return 1;
  }
  std::fputs(kUsage, stderr);
  return kUsageFault;
}
