#include "core/lora/lora_layout.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace brushwork {

std::vector<int64_t> LoraLayoutBuilder::append(const std::string& path, const std::vector<std::string>& names,
                                               int64_t in_features, int64_t out_features) {
  std::vector<int64_t> added;
  for (const std::string& name : names) {
    added.push_back(static_cast<int64_t>(targets_.size()));
    targets_.push_back({path + "." + name, in_features, out_features});
  }
  b_groups_.push_back(added);
  return added;
}

LoraLayoutBuilder::Groups LoraLayoutBuilder::add(const std::string& path, const std::vector<std::string>& names,
                                                 int64_t in_features, int64_t out_features) {
  a_groups_.push_back(append(path, names, in_features, out_features));
  return {static_cast<int64_t>(a_groups_.size()) - 1, static_cast<int64_t>(b_groups_.size()) - 1};
}

LoraLayoutBuilder::Groups LoraLayoutBuilder::add_text(const std::string& path, const std::vector<std::string>& names,
                                                      int64_t in_features, int64_t out_features) {
  const auto added = append(path, names, in_features, out_features);
  a_groups_[kTextGroup].insert(a_groups_[kTextGroup].end(), added.begin(), added.end());
  return {kTextGroup, static_cast<int64_t>(b_groups_.size()) - 1};
}

LoraLayout LoraLayoutBuilder::finish() const {
  std::vector<int64_t> order(targets_.size());  // position after sorting -> position of addition
  std::iota(order.begin(), order.end(), 0);
  const auto target = [this](int64_t i) -> const LoraTarget& { return targets_[static_cast<size_t>(i)]; };
  std::sort(order.begin(), order.end(), [&](int64_t i, int64_t j) { return target(i).name < target(j).name; });

  LoraLayout layout;
  std::vector<int64_t> ordinal(targets_.size());
  for (const int64_t i : order) {
    ordinal[static_cast<size_t>(i)] = static_cast<int64_t>(layout.targets.size());
    layout.targets.push_back(target(i));
  }
  const auto renumber = [&](std::vector<std::vector<int64_t>> groups) {
    for (auto& group : groups) {
      for (auto& i : group) i = ordinal[static_cast<size_t>(i)];
    }
    return groups;
  };
  layout.a_groups = renumber(a_groups_);
  layout.b_groups = renumber(b_groups_);
  return layout;
}

LoraLayout join_layouts(LoraLayout unet, const LoraLayout& text_encoder) {
  const TextEncoderPart part{static_cast<int64_t>(unet.targets.size()),
                             {static_cast<int64_t>(unet.a_groups.size()), static_cast<int64_t>(unet.b_groups.size())}};
  const auto append = [&part](std::vector<std::vector<int64_t>>& groups, std::vector<std::vector<int64_t>> added) {
    for (auto& group : added) {
      for (auto& i : group) i += part.target;
      groups.push_back(std::move(group));
    }
  };
  unet.targets.insert(unet.targets.end(), text_encoder.targets.begin(), text_encoder.targets.end());
  append(unet.a_groups, text_encoder.a_groups);
  append(unet.b_groups, text_encoder.b_groups);
  unet.text_encoder = part;
  return unet;
}

}  // namespace brushwork
