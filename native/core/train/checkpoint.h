// Defines: save_checkpoint, restore_checkpoint (a run's whole state in one safetensors file).
//
// Tensors: params, step_count, those of the optimizer (see `Optimizer::state()`; exp_avg and exp_avg_sq of AdamW), and
// where they exist ema, gradients, loss_scale, growth_tracker.
// What happens when the file and the job differ:
//
//   format_version, seed, rank, alpha, lora_layout (module names, shapes and places), precision, image_count,
//   batch_size, gradient_accumulation, optimizer, ema_decay set or not,
//   train_text_encoder, how many pictures have which size                refused: the state would mean something else
//   everything else of the configuration                                 the job's value is used from here on
//
// Whether pictures, captions and base model are the same is for the caller to know: their bytes are not in the file.
#pragma once

#include <string>

#include "core/train/trainer.h"

namespace brushwork {

// Writes the trainer's state to `file` atomically: the name appears only when the bytes are complete. Equal states give
// equal bytes. Throws INTERNAL when the disk refuses, LOSS_NOT_FINITE when there is no state worth keeping.
void save_checkpoint(const Trainer& trainer, const std::string& file);

// Replaces the trainer's state by the file's; on an error the trainer stays as it was. Throws CHECKPOINT_INCOMPATIBLE,
// saying what differs, for a file that is damaged or belongs to another run.
void restore_checkpoint(Trainer& trainer, const std::string& file);

}  // namespace brushwork
