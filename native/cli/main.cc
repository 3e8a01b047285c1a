// The training core as a plain program, for benchmarks and GPU checks on machines without Node.
#include <cstdio>
#include <cstring>
#include <exception>

#include "cli/commands.h"
#include "core/errors.h"

namespace {

constexpr const char* kUsage =
    "Usage: brushwork-native <command> [--option value]…\n"
    "\n"
    "  make-base-model  --directory DIR [--preset tiny|small] [--seed N]\n"
    "  bench            --model DIR [--steps 30] [--warmup 5] [job options]\n"
    "  train-synthetic  --model DIR --output DIR [--restore CHECKPOINT] [job options]\n"
    "\n"
    "job options: --device cpu|cuda --threads N --precision no|fp16|bf16 --size PX --images N --seed N --rank N\n"
    "             --alpha X --dropout X --learning-rate X --epochs N --batch N --accumulation N\n"
    "             --train-text-encoder 0|1 --gradient-checkpointing 0|1\n";

struct Command {
  const char* name;
  void (*run)(brushwork::cli::Options&);
};

constexpr Command kCommands[] = {{"make-base-model", brushwork::cli::make_base_model},
                                 {"bench", brushwork::cli::bench},
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
  } catch (const brushwork::Error& error) {
    std::fprintf(stderr, "%s: %s\n", error.code_name(), error.what());
    return 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  std::fputs(kUsage, stderr);
  return kUsageFault;
}
