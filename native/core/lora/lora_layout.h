// Which linear layers of a UNet get a LoRA, and in what order their parameters lie in memory.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace brushwork {

// A linear layer of the UNet that gets a LoRA. `name` is its path as diffusers spells it, e.g.
// "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q".
struct LoraTarget {
  std::string name;
  int64_t in_features;
  int64_t out_features;
};

// The targets, and which of them lie side by side in the flat tensor so that a forward pass can use them as one batch
// of matrices.
struct LoraLayout {
  std::vector<LoraTarget> targets;             // sorted by name (code point)
  std::vector<std::vector<int64_t>> a_groups;  // a partition of the targets' indices; one in_features per group
  std::vector<std::vector<int64_t>> b_groups;  // another one; one out_features per group
};

// Collects the targets while a UNet loads.
class LoraLayoutBuilder {
 public:
  // Where a set of targets lies: indices into `a_groups` and `b_groups`.
  struct Groups {
    int64_t a;
    int64_t b;
  };

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
  std::vector<std::vector<int64_t>> a_groups_ = {{}};
  std::vector<std::vector<int64_t>> b_groups_;
};

}  // namespace brushwork
