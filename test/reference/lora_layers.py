"""What the recipe says about the LoRA layers and PEFT leaves open: whose dropout masks are drawn when, and how half
precision rounds."""

import torch
from peft.tuners.lora import Linear as LoraLinear

PARTS = ["down_blocks", "mid_block", "up_blocks"]


class DropoutMasks:
    """The masks of a micro-step, all from one generator, in the order in which the forward pass needs them.

    Modules that read the same input share a draw: first all keys and values of cross-attention, which read the text, in
    the order of the UNet's layers; then, layer by layer, the three projections of self-attention, its output, the query
    of cross-attention and its output. A draw is `empty(modules, rows, features).bernoulli_(1 - dropout)`.
    """

    def __init__(self, modules: list[tuple[str, LoraLinear]], dropout: float):
        self.keep = 1.0 - dropout
        self.places = {}
        readers_of_text = []
        for name in sorted((name for name, _ in modules), key=lambda name: PARTS.index(name.split(".")[0])):
            attention, projection = name.split(".attn")[0], name.split(".attn")[1]
            if projection in ("2.to_k", "2.to_v"):
                readers_of_text.append(name)
            elif projection in ("1.to_q", "1.to_k", "1.to_v"):
                self.places[name] = (attention, ["1.to_q", "1.to_k", "1.to_v"].index(projection), 3)
            else:
                self.places[name] = (name, 0, 1)
        for index, name in enumerate(readers_of_text):
            self.places[name] = ("text", index, len(readers_of_text))
        self.text_count = len(readers_of_text)

    def start_step(self, generator: torch.Generator, text: torch.Tensor) -> None:
        """`text`: the embedded captions of the micro-step."""
        self.generator = generator
        self.drawn = {}
        self.draw("text", self.text_count, text)

    def draw(self, group: str, count: int, x: torch.Tensor) -> torch.Tensor:
        self.drawn[group] = torch.empty(count, *x.shape, dtype=x.dtype).bernoulli_(self.keep, generator=self.generator)
        return self.drawn[group]

    def drop(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """`x` with zeros for what is dropped; what is kept stays as it is."""
        if self.keep == 1.0:
            return x
        group, index, count = self.places[name]
        drawn = self.drawn[group] if group in self.drawn else self.draw(group, count, x)
        return x * drawn[index]


class MaskedInput(torch.nn.Module):
    """Takes the place of a LoRA layer's dropout."""

    def __init__(self, masks: DropoutMasks, name: str):
        super().__init__()
        self.masks, self.name = masks, name

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.masks.drop(self.name, x) / self.masks.keep


def use_masks(modules: list[tuple[str, LoraLinear]], masks: DropoutMasks) -> None:
    for name, module in modules:
        module.lora_dropout["default"] = MaskedInput(masks, name)


def round_to_compute_type(modules: list[tuple[str, LoraLinear]], masks: DropoutMasks) -> None:
    """Makes each layer use its float32 A and (alpha / rank) B rounded to the type of its input, as torch.autocast does;
    PEFT by itself would compute the LoRA in float32. What dropout keeps is made up for in B before it is rounded."""
    for name, module in modules:
        scale = module.scaling["default"] / masks.keep

        def forward(x: torch.Tensor, name=name, module=module, scale=scale) -> torch.Tensor:
            a = module.lora_A["default"].weight.to(x.dtype)
            b = (module.lora_B["default"].weight * scale).to(x.dtype)
            kept = masks.drop(name, x)
            return module.base_layer(x) + torch.nn.functional.linear(torch.nn.functional.linear(kept, a), b)

        module.forward = forward
