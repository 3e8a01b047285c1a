// Which linear layers get a LoRA, and in what order their parameters lie in memory.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace brushwork {

// A linear layer that gets a LoRA. `name` is its path in its network as diffusers spells it, e.g.
// "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q", or as the text encoder's files spell it, e.g.
// "text_model.encoder.layers.0.self_attn.q_proj".
struct LoraTarget {
  std::string name;
  int64_t in_features;
  int64_t out_features;
};

// Where a set of targets lies: indices into `LoraLayout::a_groups` and `b_groups`.
struct LoraGroups {
  int64_t a;
  int64_t b;
};

// Where the text encoder's part of a joint layout begins.
struct TextEncoderPart {
  int64_t target;
  LoraGroups groups;
};

// The targets, and which of them lie side by side in the flat tensor so that a forward pass can use them as one batch
// of matrices.
struct LoraLayout {
  std::vector<LoraTarget> targets;             // of each network sorted by name (code point); the UNet's first
  std::vector<std::vector<int64_t>> a_groups;  // a partition of the targets' indices; one in_features per group
  std::vector<std::vector<int64_t>> b_groups;  // another one; one out_features per group
  std::optional<TextEncoderPart> text_encoder = std::nullopt;  // none: it is not trained
};

// One layout for both networks: the targets and groups of `text_encoder` after those of `unet`, which keep their
// indices.
LoraLayout join_layouts(LoraLayout unet, const LoraLayout& text_encoder);

// Collects the targets while a network loads.
class LoraLayoutBuilder {
 public:
  using Groups = LoraGroups;

  // `has_text_group`: false for a network whose targets don't read the text; it must not call `add_text`.
  explicit LoraLayoutBuilder(bool has_text_group = true) : a_groups_(has_text_group ? 1 : 0) {}

  // The A group of all targets that read the text, in the order in which they were added.
  static constexpr int64_t kTextGroup = 0;

  // Targets below `path` that read the same input and have the same shape.
  Groups add(const std::string& path, const std::vector<std::string>& names, int64_t in_features, int64_t out_features);
  // The same for targets that read the text: their A go to `kTextGroup`.
  Groups add_text(const std::string& path, const std::vector<std::string>& names, int64_t in_features,
                  int64_t out_features);

  // The finished layout, with targets sorted and groups referring to them.
  LoraLayout finish() const;

 private:
  std::vector<int64_t> append(const std::string& path, const std::vector<std::string>& names, int64_t in_features,
                              int64_t out_features);

  std::vector<LoraTarget> targets_;  // in the order of their addition; groups refer to that until `finish`
  std::vector<std::vector<int64_t>> a_groups_;
  std::vector<std::vector<int64_t>> b_groups_;
};

}  // namespace brushwork
