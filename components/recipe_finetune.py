"""The recipe's section `finetune`: how the weights are changed, and what contradicts what in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from components.errors import InputError
from components.finetuning.method_keys import DEV_ROWS, NOT_OF_HEADS, READ_BY
from components.finetuning.shards import check_shardable
from components.models.rope import LARGEST_FACTOR, ROPE_TYPES, RopeScaling
from components.models.soft_prompt import SOFT_PROMPTS
from components.recipe_errors import shown
from components.recipe_section import Auto, Fraction, Section

__all__ = ["FinetuneSection"]

MethodName = Literal[
    "auto", "full", "lora", "qlora", "bottleneck", "prefix_tuning", "prompt_tuning", "p_tuning", "features"
]
Reporter = Literal["tensorboard", "mlflow", "wandb"]


def _joined(value: Any) -> Any:
    """Take a list of names for what adapters take: one text, parted by commas."""
    several = isinstance(value, list) and value and all(isinstance(name, str) and name.strip() for name in value)
    return ",".join(value) if several else value


ModuleNames = Annotated[
    str,
    BeforeValidator(_joined),
    Field(json_schema_extra={
        "type": ["string", "array"],
        "items": {"type": "string"},
        "x-allowed": "auto, attention-qv, attention-qkvo, all-linear, or module names as a list such as [q_proj]",
    }),
]  # fmt: skip


def _rope_mapping(value: Any) -> Any:
    """Take `yarn:2` for what it stands for, and say of a mapping what is missing or unknown in it."""
    if isinstance(value, str):
        try:
            return RopeScaling.parse(value).to_record()
        except InputError as error:
            raise ValueError(f"{error.problem}; allowed: {error.allowed}") from error
    if isinstance(value, Mapping) and set(value) != {"type", "factor"}:
        raise ValueError(f"has the keys {', '.join(map(str, value)) or 'none'}; allowed: type and factor, both of them")
    return value


def _rope_schema(schema: dict[str, Any]) -> None:
    """Say in the schema that a text is taken too."""
    schema["anyOf"].insert(1, {"type": "string"})
    schema["x-allowed"] = (
        f"a mapping of type ({', '.join(ROPE_TYPES)}) and factor (above 1, up to {LARGEST_FACTOR:g}), or both as text, "
        "such as yarn:2"
    )


class RopeSection(Section):
    """How positions are scaled beyond those that the base was trained on."""

    type: Literal["linear", "dynamic", "yarn"] = Field(description="how the rotary frequencies change")
    factor: float = Field(gt=1, le=LARGEST_FACTOR, description="reach over the base's positions")

    @property
    def scaling(self) -> RopeScaling:
        """The plain value that parts take."""
        return RopeScaling(self.type, self.factor)


class FinetuneSection(Section):
    """How the weights are changed."""

    method: MethodName = Field(
        "auto",
        description="what is trained; 'auto': the first that fits of full (from 10,000 rows on), lora, qlora",
    )
    objective: Literal["answers", "text"] = Field(
        "answers", description="what is learned: the assistant's answers in chats, or every token of data.text"
    )
    rank: Annotated[int, Field(ge=1, le=512)] | Auto = Field(
        "auto", description="width of the LoRA factors; 4 to 64 is usual; 'auto': by rows and memory"
    )
    alpha: float = Field(32.0, gt=0, description="LoRA scale; the delta is multiplied by alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: ModuleNames = Field(
        "auto",
        description="attention-qv, attention-qkvo, all-linear, or a list of module names; 'auto': all-linear, "
        "attention-qv where memory is tight",
    )
    rslora: bool = Field(False, description="LoRA's delta is multiplied by alpha / sqrt(rank), for high ranks")
    dora: bool = Field(False, description="LoRA learns each weight's magnitude apart from its direction")
    lora_start: Literal["zero", "pissa", "loftq"] = Field(
        "zero",
        description="what LoRA begins with: 'zero' changes nothing; 'pissa': the weights' largest singular parts; "
        "'loftq', with qlora: what 4 bits lose of the weights",
    )
    bottleneck_width: int = Field(64, ge=1, le=8192, description="width of bottleneck adapters; 8 to 256 is usual")
    virtual_tokens: int = Field(20, ge=1, le=4096, description="length of a soft prompt; 20 to 100 is usual")
    head: Literal["auto", "classification", "regression"] = Field(
        "auto", description="with features: what the answers are; 'auto': regression where they are numbers of more "
        "than ten kinds"
    )  # fmt: skip
    head_pooling: Literal["last", "mean"] = Field(
        "last", description="with features: hidden states of the prompt's last token, or the mean over its tokens"
    )
    head_layer: Annotated[int, Field(ge=1, le=1000)] | Literal["last"] = Field(
        "last", description="with features: the layer whose states are taken, from 1; 'last': behind the final norm"
    )
    head_width: int = Field(0, ge=0, le=8192, description="with features: width of a hidden layer; 0: linear")
    head_class_weights: bool = Field(False, description="with features: weigh a class by what it lacks in rows")
    head_patience: int = Field(
        10, ge=0, description="with features: epochs without a smaller dev loss that end training; 0: all are made"
    )
    quantization_aware: Literal["int8", "int4"] | None = Field(
        None,
        description="with method full: every layer computes with its weight as it will be quantized, and what is left "
        "are weights in these integers; none: plain training",
    )
    learning_rate: Annotated[float, Field(gt=0, lt=1)] | Auto = Field(
        "auto", description="peak of the schedule; 'auto': from the end of pretraining, or by method and size"
    )
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_fraction: Fraction = 0.05
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    epochs: Annotated[float, Field(gt=0)] | Auto = Field(
        "auto", description="passes over the training rows, or a part of one; 'auto': by their number"
    )
    effective_rows: int = Field(
        16, ge=1, description="rows behind each optimizer step, at most: a group's last sequence may hold fewer"
    )
    rows_per_sequence: int = Field(4, ge=1, description="rows that share one prefix in a sequence; 1: no packing")
    max_tokens: int = Field(1024, ge=16, description="longest packed sequence in tokens")
    rope_scaling: Annotated[RopeSection | None, BeforeValidator(_rope_mapping)] = Field(
        None,
        description="positions past the base's own: {type: linear, dynamic or yarn, factor: 2}, or yarn:2; goes with "
        "the weights wherever they are loaded",
        json_schema_extra=_rope_schema,
    )
    prompt_loss_weight: Fraction | Auto = Field(
        "auto", description="weight of prompt tokens in the loss; 'auto': 0.01, or 0.1 where answers are short"
    )
    teacher: str | None = Field(
        None, min_length=1, description="model with the base's tokenizer that is learned from as well; named as a base"
    )
    distillation_weight: Fraction = Field(
        0.5, description="with a teacher: part of the loss that is the distance from its distributions"
    )
    temperature: float = Field(
        2.0, gt=0, le=100, description="with a teacher: flattens both distributions; 1 leaves them as they are"
    )
    attention: Literal["auto", "sdpa", "flex", "flash"] = Field(
        "auto",
        description="what computes attention in training: torch's sdpa, flex (FlexAttention, on CUDA), or flash "
        "(FlashAttention, on CUDA, in 16 bits, where no rows share a prefix); 'auto': the fastest that is there",
    )
    compile: bool | Auto = Field(
        "auto",
        description="torch.compile the blocks' passes in training; 'auto': in long runs on a CPU, which win by it",
    )
    liger: bool | Auto = Field(
        "auto", description="Liger's norms, gated layers and rotary positions; 'auto': on CUDA, where it is installed"
    )
    processes: Annotated[int, Field(ge=1, le=1024)] | Auto = Field(
        1,
        description="processes on this machine that train together, each on its own GPU or its part of the cores; "
        "'auto': as many as there are GPUs, 1 on CPUs",
    )
    parallel: Literal["ddp", "fsdp"] = Field(
        "ddp",
        description="with several processes: 'ddp', each has all of the model; 'fsdp', each has a part of weights, "
        "gradients and optimizer states",
    )
    checkpoint_steps: int = Field(20, ge=1, description="optimizer steps between checkpoints")
    keep_checkpoints: int = Field(2, ge=2, description="complete checkpoints that are kept")
    dev_loss_rows: int = Field(24, ge=0, description="dev rows behind each dev loss; 0: none; features takes all")
    dev_metric_rows: int = Field(
        0, ge=0, description="dev rows that are answered and scored with each dev loss, by task.metric; 0: none"
    )
    dev_passes: int = Field(
        4,
        ge=1,
        description="how often dev rows are measured, the last time after the last step; features: after every epoch",
    )
    early_stopping: int = Field(
        0, ge=0, description="measurements in a row that bring nothing better, after which training ends; 0: it goes on"
    )
    keep_best: bool = Field(
        True,
        description="keep the weights of the best measurement; false: the last step's, and dev rows decide nothing",
    )
    report_to: tuple[Reporter, ...] = Field(
        (),
        description="who is told of the run besides the terminal: tensorboard, mlflow, wandb; each has to be installed",
    )

    def _set_ones(self) -> list[str]:
        """Return the keys whose values aren't the defaults."""
        return [name for name, field in type(self).model_fields.items() if getattr(self, name) != field.default]

    @model_validator(mode="after")
    def _start_fits_the_method(self) -> FinetuneSection:
        wanted = {"pissa": "lora", "loftq": "qlora"}.get(self.lora_start)
        if wanted is not None and self.method != wanted:
            raise ValueError(
                f"lora_start {shown(self.lora_start)} is for method {wanted}, and method is {shown(self.method)}: "
                "PiSSA takes parts of the weights, LoftQ begins with what 4 bits lose of them"
            )
        if self.lora_start == "pissa" and self.dora:
            raise ValueError("lora_start 'pissa' with dora can't be saved on the untouched base: choose one")
        if (self.dora or self.rslora) and self.method not in ("auto", "lora", "qlora"):
            raise ValueError(f"dora and rslora are variants of LoRA, and method is {shown(self.method)}")
        return self

    @model_validator(mode="after")
    def _integers_are_of_whole_weights(self) -> FinetuneSection:
        if self.quantization_aware is not None and self.method != "full":
            raise ValueError(
                f"quantization_aware {shown(self.quantization_aware)} is for method 'full', and method is "
                f"{shown(self.method)}: an adapter beside rounded weights isn't rounded with them once it is merged; "
                "set method to full, or train without it and use `tunewright quantize`"
            )
        return self

    @model_validator(mode="after")
    def _distillation_has_a_teacher(self) -> FinetuneSection:
        for key in ("distillation_weight", "temperature"):
            if self.teacher is None and getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"{key} is for learning from a teacher, and there is none: set finetune.teacher")
        if self.teacher is not None and self.distillation_weight == 0:
            raise ValueError("distillation_weight 0 learns nothing from the teacher: raise it, or drop teacher")
        return self

    @model_validator(mode="after")
    def _early_stopping_has_what_it_needs(self) -> FinetuneSection:
        for key in ("early_stopping", "dev_metric_rows"):
            if getattr(self, key) and not self.dev_loss_rows:
                raise ValueError(f"{key} needs dev losses, and dev_loss_rows is 0: raise it, or set {key} 0")
        if self.early_stopping > max(0, self.dev_passes - 2):
            raise ValueError(
                f"early_stopping {self.early_stopping} can't come true with dev_passes {self.dev_passes}: before the "
                "last of them it needs one that is the best and so many that aren't; raise dev_passes"
            )
        return self

    @model_validator(mode="after")
    def _frequencies_are_those_of_a_row(self) -> FinetuneSection:
        if self.rope_scaling is not None and self.rope_scaling.type == "dynamic" and self.rows_per_sequence > 1:
            raise ValueError(
                f"rope_scaling dynamic with rows_per_sequence {self.rows_per_sequence}: frequencies follow a row's "
                "length, and rows behind one prefix would get those of the longest: set rows_per_sequence to 1"
            )
        return self

    @model_validator(mode="after")
    def _kernels_suit_the_rows(self) -> FinetuneSection:
        if self.attention == "flash" and self.objective == "answers" and self.rows_per_sequence > 1:
            raise ValueError(
                f"attention 'flash' with rows_per_sequence {self.rows_per_sequence}: it can't show one prefix to "
                "several rows; set attention to flex, which wants a GPU, or rows_per_sequence to 1"
            )
        if self.attention in ("flex", "flash") and self.method in SOFT_PROMPTS:
            raise ValueError(
                f"attention {shown(self.attention)} with method {shown(self.method)}, whose virtual tokens are laid "
                "before a mask: set attention to sdpa"
            )
        return self

    @model_validator(mode="after")
    def _a_head_is_of_features(self) -> FinetuneSection:
        head = [key for key in self._set_ones() if READ_BY.get(key) == ("features",)]
        if head and self.method != "features":
            raise ValueError(f"{head[0]} is for method features, and method is {shown(self.method)}")
        if self.method == "features" and not self.keep_best:
            raise ValueError("keep_best can't be false with method 'features': the dev loss chooses a head's epoch")
        not_read = [key for key in self._set_ones() if key in NOT_OF_HEADS and key not in DEV_ROWS]
        if not_read and self.method == "features":
            raise ValueError(f"{not_read[0]} is for methods that train through the base, and method is 'features'")
        return self

    @model_validator(mode="after")
    def _processes_share_what_can_be_shared(self) -> FinetuneSection:
        if self.processes == 1:
            return self
        if self.compile is True:
            raise ValueError("compile with several processes was not tried: leave it 'auto', or set processes to 1")
        if self.parallel == "fsdp":
            try:
                check_shardable(self.method, "auto", self.quantization_aware)
            except InputError as error:
                raise ValueError(f"{error.problem}; allowed: {error.allowed}; {error.next_step}") from error
        sequences = self.effective_rows // self.rows_per_sequence
        if self.processes != "auto" and sequences % self.processes:
            raise ValueError(
                f"{self.processes} processes can't share a step of {sequences} sequences (effective_rows "
                f"{self.effective_rows} / rows_per_sequence {self.rows_per_sequence}): choose a number that divides it"
            )
        return self

    @model_validator(mode="after")
    def _rows_divide(self) -> FinetuneSection:
        if self.effective_rows % self.rows_per_sequence:
            raise ValueError(
                f"effective_rows {self.effective_rows} is not a multiple of rows_per_sequence {self.rows_per_sequence}:"
                " an optimizer step takes whole sequences"
            )
        return self
