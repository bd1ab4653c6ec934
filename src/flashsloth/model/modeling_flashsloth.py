"""FlashSloth: a ViT-like encoder, SAP, a projector, and a decoder-only language model with EmbQ inside.

In: token ids with placeholders, pictures, and the processor's position tensors (see `positions.py`).
Out: logits; with labels, the loss. Sources: FlashSloth (arXiv 2412.04317), figure 2 and section 3.

    pixel_values -> vision_tower -> F -> SAP -> projector -> visual tokens -> language_model
                                    '------------- EmbQ ---- before layer `embq_layer` --'

Legend: B batch, T positions of this pass, N pictures, W views a picture, P patches and R windows a view, V vision
width, D language-model width, Q query tokens a turn.
"""

from __future__ import annotations

import inspect
from contextlib import nullcontext
from threading import get_ident
from typing import Any

import torch
from torch import nn
from torch.compiler import is_exporting
from transformers import AutoModel, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.utils import can_return_tuple

from flashsloth.model.backbones import check_precision, decoder_layers, embedding_name, make_vision_tower
from flashsloth.model.configuration_flashsloth import FlashSlothConfig
from flashsloth.model.dummy_inputs import depend_on, dummy_picture, dummy_queries, must_run
from flashsloth.model.embedded_query import (
    AttentionKeeper,
    EmbeddedQuery,
    EmbeddedQueryInputs,
    QueryTokens,
    ZeroLinear,
)
from flashsloth.model.generation import CACHE_NAME, CACHE_NAMES, FlashSlothGenerationMixin, cache_argument, one_cache
from flashsloth.model.loss import LanguageModelHead, next_tokens, token_losses
from flashsloth.model.outputs import FlashSlothCausalLMOutput, FlashSlothImageFeatures, FlashSlothModelOutput
from flashsloth.model.positions import (
    check_placeholders,
    embedded_query_inputs,
    first_ones,
    place_visual_tokens,
    positions_without_padding,
    rows_of_pictures,
    visual_slots,
)
from flashsloth.model.prompt_layout import holds_placeholders, layout_from_ids, views_of_pictures
from flashsloth.model.spatial_attention_pooling import FlashSlothProjector, SpatialAttentionPooling
from flashsloth.version import warn_of_untested_versions

_EMBQ_KWARG = "embedded_query_inputs"
_ENCODER_OPTIONS = frozenset({"output_hidden_states", "output_attentions", "interpolate_pos_encoding"})


class FlashSlothPreTrainedModel(PreTrainedModel):
    """What transformers needs to know of the family."""

    config: FlashSlothConfig
    config_class = FlashSlothConfig
    base_model_prefix = "model"
    input_modalities = ("image", "text")
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _skip_keys_device_placement = CACHE_NAMES
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Draw weights the usual way, and EmbQ's way back as zeros."""
        if isinstance(module, ZeroLinear):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, QueryTokens):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
        else:
            super()._init_weights(module)

    @classmethod
    def is_custom_code(cls) -> bool:
        """No: of custom code, transformers draws only modules that have parameters of their own."""
        return False

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load a checkpoint, ours or in the published layout, strictly (see `loading/loading.py`)."""
        from flashsloth.model.loading import load_model

        return load_model(super().from_pretrained, pretrained_model_name_or_path, *args, **kwargs)


class FlashSlothModel(FlashSlothPreTrainedModel):
    """Everything but the head: pictures and token ids in, hidden states out."""

    def __init__(self, config: FlashSlothConfig) -> None:
        super().__init__(config)
        warn_of_untested_versions()
        self.vision_tower = make_vision_tower(config)
        self.spatial_attention_pooling = SpatialAttentionPooling(config)
        self.projector = FlashSlothProjector(config)
        self.query_tokens = QueryTokens(config)
        self.embedded_query = EmbeddedQuery(config)
        self.language_model = AutoModel.from_config(config.text_config)
        self.cache_argument = cache_argument(self.language_model)
        self.attention_keepers: dict[int, AttentionKeeper] = {}  # of threads that record; see attention_maps.py
        decoder_layers(self.language_model)[config.embq_layer].register_forward_pre_hook(
            self._embed_queries, with_kwargs=True
        )
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    @can_return_tuple
    def get_image_features(
        self, pixel_values: torch.Tensor, image_views: torch.Tensor | None = None, **kwargs: Any
    ) -> FlashSlothImageFeatures:
        """Look at pictures.

        Args:
            pixel_values: float [N, W, 3, size, size], or [N, 3, size, size] for one view a picture. W is 1 for the
                whole view alone, or all that the model takes.
            image_views: int64 [N], where some have fewer views than W, how many each has: its first ones. The others
                are not looked at.
            **kwargs: the encoder's: `output_hidden_states`, `output_attentions`; and `return_dict`. What else the
                processor made may come with the pixels, and is not needed.

        Raises:
            ValueError: if the views or their size are not what the configuration says, or for an option that no encoder
                has: which layer counts is `config.vision_feature_layer`.
        """
        others = kwargs.keys() - _ENCODER_OPTIONS
        if unknown := others and others - inspect.signature(self.forward).parameters.keys():
            raise ValueError(
                f"get_image_features has no options {sorted(unknown)}, expected some of {sorted(_ENCODER_OPTIONS)}"
            )
        options = {name: value for name, value in kwargs.items() if name in _ENCODER_OPTIONS}
        real = None if image_views is None else self._real_views(pixel_values, image_views)
        tower_output = self._run_tower(pixel_values, real, **options)
        image = self.pool_features(self._features(tower_output, pixel_values, real), image_views)
        image.hidden_states, image.attentions = tower_output.get("hidden_states"), tower_output.get("attentions")
        return image

    def encode_pictures(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """The encoder's features F, float [N, W*P, V], of pixels as :meth:`get_image_features` takes them.

        A frozen encoder leaves nothing behind for backward, in training too: gradients start at SAP.
        """
        return self._features(self._run_tower(pixel_values), pixel_values)

    def _real_views(self, pixel_values: torch.Tensor, image_views: torch.Tensor) -> torch.Tensor:
        """Which of the N*W views are pictures' own: bool [N*W]."""
        given, counts = pixel_values.shape[1] if pixel_values.ndim == 5 else 1, self.config.view_counts
        if image_views.shape != pixel_values.shape[:1] or any(
            count not in counts or count > given for count in image_views.tolist()
        ):
            raise ValueError(
                f"image_views is {image_views.tolist()} beside pixel_values {tuple(pixel_values.shape)}, expected "
                f"{' or '.join(map(str, counts))} for each of {pixel_values.shape[0]} pictures"
            )
        return first_ones(image_views, given).flatten().to(pixel_values.device)

    def _run_tower(self, pixel_values: torch.Tensor, real: torch.Tensor | None = None, **kwargs: Any) -> Any:
        """The encoder's output of N*W views, or of those that are `real`, bool [N*W]."""
        views = self._check_pixels(pixel_values)  # [N*W, 3, size, size]
        if real is not None:
            views = views[real]
        learns = views.requires_grad or any(parameter.requires_grad for parameter in self.vision_tower.parameters())
        with nullcontext() if learns else torch.no_grad():
            return self.vision_tower(pixel_values=views.to(self.vision_tower.dtype), return_dict=True, **kwargs)

    def _features(
        self, tower_output: Any, pixel_values: torch.Tensor, real: torch.Tensor | None = None
    ) -> torch.Tensor:
        """F, float [N, W*P, V], in the encoder's output of N*W views, or of the `real` ones; zeros for the others."""
        # A class token, where the encoder has one, stands first.
        features = tower_output.last_hidden_state[:, -self.config.num_patches :]  # [N*W, P, V]
        if real is not None:
            features = features.new_zeros(real.shape[0], *features.shape[1:]).index_put((real,), features)
        views = pixel_values.shape[1] if pixel_values.ndim == 5 else 1
        return features.unflatten(0, (-1, views)).flatten(1, 2)  # [N, W*P, V]

    def pool_features(self, features: torch.Tensor, image_views: torch.Tensor | None = None) -> FlashSlothImageFeatures:
        """The visual tokens of features F, float [N, W*P, V], beside them; `image_views` as they are."""
        count = self._views_in(features)
        views = features.unflatten(1, (count, -1)).flatten(0, 1)  # [N*W, P, V]
        tokens = self.projector(self.spatial_attention_pooling(views))  # [N*W, R, D]
        return FlashSlothImageFeatures(
            last_hidden_state=features,
            pooler_output=tokens.unflatten(0, (-1, count)).flatten(1, 2),  # [N, W*R, D]
            image_views=image_views,
        )

    def _views_in(self, features: torch.Tensor) -> int:
        """W of features float [N, W*P, V]."""
        views, rest = divmod(features.shape[1], self.config.num_patches)
        if rest or views not in self.config.view_counts:
            raise ValueError(
                f"features have shape {tuple(features.shape)}, expected {self.config.num_patches} rows a view, and "
                f"{' or '.join(map(str, self.config.view_counts))} views a picture: make them with this model"
            )
        return views

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_row: torch.Tensor | None = None,
        image_index: torch.Tensor | None = None,
        query_turn: torch.Tensor | None = None,
        question_turn: torch.Tensor | None = None,
        sample_index: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        mm_encoder_outputs: dict[str, FlashSlothImageFeatures] | None = None,
        cache: Cache | None = None,
        mm_token_type_ids: torch.Tensor | None = None,
        image_views: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> FlashSlothModelOutput:
        """Run one pass: a prompt, a part of one, or a step of generation.

        Args:
            input_ids: int64 [B, T], or `inputs_embeds` float [B, T, D] in their place, placeholders included.
            attention_mask: [B, past + T], 0 at padding, on either side.
            position_ids: int64 [B, T]; by default counted over `attention_mask`, so that padding does not count.
            pixel_values: the N pictures, float [N, W, 3, size, size]; or, already looked at,
                `mm_encoder_outputs={"image": FlashSlothImageFeatures}`, with or without the visual tokens.
            image_row: int64 [N], the batch row of each picture. Default: as `image_index` counts them. Needed only
                where pictures stand in an earlier, cached pass.
            image_index, query_turn, question_turn: int64 [B, T], the processor's position tensors.
            sample_index: int64 [B, T], where several samples are packed into a row (see `training/packing.py`): their
                turns then see their own pictures alone. What keeps attention apart is `attention_mask`.
            cache, past_key_values: keys and values of earlier passes, by either of transformers' names.
            mm_token_type_ids: taken, since the processor may give them, and not needed: `image_index` says more.
            image_views: int64 [N], where pictures of `pixel_values` have unlike numbers of views, how many each has.

        Raises:
            ValueError: where pictures, placeholders and position tensors do not agree.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        cache = one_cache(cache, past_key_values)
        if input_ids is not None:
            marks = (image_index, query_turn, question_turn)
            if all(found is None or found.shape[-1] < input_ids.shape[-1] for found in marks):
                # Not given, or those of a beginning, as TRL gives the prompt's beside prompt and completion.
                image_index, query_turn, question_turn = self._layout(
                    input_ids, attention_mask, pixel_values, image_views, mm_encoder_outputs, cache
                )
            check_placeholders(input_ids, self.config.image_token_id, "image_index", image_index)
            check_placeholders(input_ids, self.config.query_token_id, "query_turn", query_turn)
            inputs_embeds = self.get_input_embeddings()(input_ids)
        assert inputs_embeds is not None
        check_precision(self.language_model, inputs_embeds)
        image = self._image_features(pixel_values, image_views, mm_encoder_outputs)
        blank = dummy_picture(self, inputs_embeds) if image is None else None
        inputs_embeds, embq_inputs = self._place_pictures(
            inputs_embeds, image, image_row, image_index, query_turn, question_turn, sample_index
        )
        if embq_inputs is not None and self.attention_keepers:
            embq_inputs.keep = self.attention_keepers.get(get_ident())
        if blank is not None:
            inputs_embeds = depend_on(inputs_embeds, blank.pooler_output)
        if query_turn is not None:
            inputs_embeds = self._place_query_tokens(inputs_embeds, query_turn)
        elif must_run(self, self.query_tokens):
            anchor = inputs_embeds.new_zeros(inputs_embeds.shape[-1])
            inputs_embeds = depend_on(inputs_embeds, self.query_tokens(anchor))
        if embq_inputs is None:
            embq_inputs = dummy_queries(self, inputs_embeds, blank if image is None else image)
        if position_ids is None:
            position_ids = positions_without_padding(attention_mask, inputs_embeds.shape[1])
        if embq_inputs is not None:
            kwargs[_EMBQ_KWARG] = embq_inputs
        if use_cache is None and self.training:
            use_cache = False  # keys and values would be copied for nobody
        outputs = self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            use_cache=use_cache,
            return_dict=True,
            **{self.cache_argument: cache},
            **kwargs,
        )
        if embq_inputs is not None and not embq_inputs.reached.yes:
            raise ValueError(
                f"{type(self.language_model).__name__} does not hand keyword arguments down to its layers, so its "
                f"queries would never see the picture: choose another language model"
            )
        return FlashSlothModelOutput(
            last_hidden_state=outputs.last_hidden_state,
            hidden_states=outputs.get("hidden_states"),
            attentions=outputs.get("attentions"),
            image_outputs=image,
            **{CACHE_NAME: getattr(outputs, CACHE_NAME)},
        )

    def _embed_queries(self, layer: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        """Before decoder layer `embq_layer`: let the queries look. The one place where the language model is touched.

        What EmbQ needs travels in the layer's keyword arguments, which every decoder of transformers hands down, so
        recomputation, several threads and several devices need no care.
        """
        inputs = kwargs.get(_EMBQ_KWARG)
        if inputs is None:
            return args, kwargs
        inputs.reached.yes = True
        if args:
            return (self.embedded_query(args[0], inputs), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": self.embedded_query(kwargs["hidden_states"], inputs)}

    def _image_features(
        self,
        pixel_values: torch.Tensor | None,
        image_views: torch.Tensor | None,
        outputs: dict[str, FlashSlothImageFeatures] | None,
    ) -> FlashSlothImageFeatures | None:
        """The pictures as given, or looked at now, or None."""
        given = outputs.get("image") if outputs else None
        if given is not None and pixel_values is not None:
            raise ValueError("give pixel_values or mm_encoder_outputs['image'], not both: they are the same pictures")
        if given is None and pixel_values is not None and pixel_values.shape[0]:
            return self.get_image_features(pixel_values, image_views)
        if given is not None and given.pooler_output is None:
            return self.pool_features(given.last_hidden_state, given.image_views)
        return given

    def _layout(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None,
        pixel_values: torch.Tensor | None,
        image_views: torch.Tensor | None,
        outputs: dict[str, FlashSlothImageFeatures] | None,
        cache: Cache | None,
    ) -> tuple[torch.Tensor | None, ...]:
        """Image index, query turns and question turns of ids that came without; None of each where none are needed."""
        if is_exporting():
            if pixel_values is not None or outputs is not None:
                raise ValueError("pictures are exported with the processor's position tensors alone: give all three")
            return None, None, None
        if not holds_placeholders(input_ids, self.config):
            return None, None, None
        if cache is not None and cache.get_seq_length() > 0:
            raise ValueError(
                "input_ids holds placeholders after a cached beginning, and ids alone do not say which picture or turn "
                "they are of: use the processor's position tensors, or give the whole prompt without a cache"
            )
        views = views_of_pictures(pixel_values, image_views, outputs, self.config)
        layout = layout_from_ids(input_ids, views, self.config, attention_mask)
        return layout["image_index"], layout["query_turn"], layout["question_turn"]

    def _place_pictures(
        self,
        inputs_embeds: torch.Tensor,
        image: FlashSlothImageFeatures | None,
        image_row: torch.Tensor | None,
        image_index: torch.Tensor | None,
        query_turn: torch.Tensor | None,
        question_turn: torch.Tensor | None,
        sample_index: torch.Tensor | None,
    ) -> tuple[torch.Tensor, EmbeddedQueryInputs | None]:
        """Put the visual tokens in their places, float [B, T, D], and say what EmbQ will look at."""
        if image is None:
            if image_index is not None and not is_exporting() and bool((image_index > 0).any()):
                raise ValueError(
                    f"image_index marks {int((image_index > 0).sum())} visual positions, but no pictures were given: "
                    f"pass pixel_values"
                )
            return inputs_embeds, None
        if image_index is None:
            image_index = torch.zeros(inputs_embeds.shape[:2], dtype=torch.long, device=inputs_embeds.device)
        image_row = rows_of_pictures(image.pooler_output.shape[0], image_row, image_index)
        mixed = None if image.image_views is None else image.image_views.to(image_row.device)  # [N]
        windows, patches = self.config.num_windows, self.config.num_patches
        counts = None if mixed is None else mixed * windows
        tokens = self._views_in(image.last_hidden_state) * windows if counts is None else counts
        slots = visual_slots(image_index, image_row, tokens)  # [N, T]
        inputs_embeds = place_visual_tokens(inputs_embeds, image.pooler_output, image_row, slots, counts)
        if query_turn is None or question_turn is None:
            if query_turn is not question_turn:
                raise ValueError("query_turn and question_turn go together: use the processor's tensors together")
            return inputs_embeds, None
        return inputs_embeds, embedded_query_inputs(
            query_turn,
            question_turn,
            image.last_hidden_state,
            image_row,
            slots,
            self.config.num_query_tokens,
            sample_index,
            None if mixed is None else mixed * patches,
        )

    def _place_query_tokens(self, inputs_embeds: torch.Tensor, query_turn: torch.Tensor) -> torch.Tensor:
        """Put the Q query vectors, each with the anchor's embedding, at every turn's query positions."""
        mask, size = query_turn > 0, self.config.num_query_tokens
        queries = self.query_tokens(self._anchor(inputs_embeds)).to(inputs_embeds.dtype)  # [Q, D]
        if is_exporting():
            place = (mask.flatten().cumsum(dim=0) - 1).view_as(mask) % size  # [B, T]
            return torch.where(mask.unsqueeze(-1), queries[place], inputs_embeds)
        count = int(mask.sum())
        if count % size:
            raise ValueError(f"query_turn marks {count} positions, expected a multiple of {size}")
        repeated = queries.repeat(count // size, 1)  # [n*Q, D]
        return inputs_embeds.masked_scatter(mask.unsqueeze(-1), repeated)

    def _anchor(self, inputs_embeds: torch.Tensor) -> torch.Tensor:
        """The anchor's embedding, float [D]."""
        embeddings = self.get_input_embeddings()
        # NEFTune's noise is the smaller the longer the row that is embedded, so the anchor gets a row of equal length.
        length = inputs_embeds.shape[1] if hasattr(embeddings, "neftune_noise_alpha") else 1
        anchor_id = torch.full((1, length), self.config.anchor_token_id, device=inputs_embeds.device)
        return embeddings(anchor_id)[0, 0]

    def _check_pixels(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Views in one row: float [N*W, 3, size, size]."""
        size, views = self.config.vision_config.image_size, self.config.view_counts
        if pixel_values.ndim == 4:
            pixel_values = pixel_values.unsqueeze(1)
        if pixel_values.ndim != 5 or pixel_values.shape[1] not in views or pixel_values.shape[2:] != (3, size, size):
            expected = " or ".join(map(str, views))
            raise ValueError(
                f"pixel_values has shape {tuple(pixel_values.shape)}, expected [pictures, {expected}, 3, {size}, "
                f"{size}]: use this model's own processor"
            )
        return pixel_values.flatten(0, 1)


class FlashSlothForConditionalGeneration(FlashSlothGenerationMixin, FlashSlothPreTrainedModel):
    """FlashSloth with its head: what answers, and what is trained."""

    _tied_weights_keys: dict[str, str] = {}  # noqa: RUF012 - transformers reads a plain class attribute
    _tp_plan = {"lm_head": "colwise_gather_output"}  # noqa: RUF012

    def __init__(self, config: FlashSlothConfig) -> None:
        super().__init__(config)
        self.model = FlashSlothModel(config)
        text = config.text_config
        self.lm_head = LanguageModelHead(text.hidden_size, text.vocab_size, bias=config.lm_head_bias)
        self._tied_weights_keys = {"lm_head.weight": embedding_name(self)}
        self.post_init()
        if embedding_name(self).removesuffix(".weight") not in self.tp_plan:
            self.tp_plan.pop("lm_head", None)  # a tied head is divided among devices as the embedding is, or not at all
        self._suppress_placeholders()

    def get_input_embeddings(self) -> nn.Module:
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def set_output_embeddings(self, value: Any) -> None:
        self.lm_head = value

    def get_image_features(
        self, pixel_values: torch.Tensor, image_views: torch.Tensor | None = None, **kwargs: Any
    ) -> FlashSlothImageFeatures:
        """See :meth:`FlashSlothModel.get_image_features`."""
        return self.model.get_image_features(pixel_values, image_views, **kwargs)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_row: torch.Tensor | None = None,
        image_index: torch.Tensor | None = None,
        query_turn: torch.Tensor | None = None,
        question_turn: torch.Tensor | None = None,
        sample_index: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        mm_encoder_outputs: dict[str, FlashSlothImageFeatures] | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        skip_logits: bool | None = None,
        cache: Cache | None = None,
        shift_labels: torch.Tensor | None = None,
        mm_token_type_ids: torch.Tensor | None = None,
        image_views: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> FlashSlothCausalLMOutput:
        """As :meth:`FlashSlothModel.forward`, then the head.

        Args:
            labels: int64 [B, T], -100 where nothing is learned. The loss is the mean next-token cross-entropy over all
                supervised tokens of the batch.
            logits_to_keep: how many last positions get logits (0: all), or int64 indices of those that do.
            shift_labels: int64 [B, T], labels that are shifted already: the token after each position. They count in
                the place of `labels`, as where a sequence is split over devices and the next token is on another.
            num_items_in_batch: supervised tokens to divide by, where this batch is a part of a larger one.
            skip_logits: make the loss without the logits of all positions (see `loss.py`); in
                evaluation, the most likely tokens come with it. Default: in training, where labels are given.
        """
        if skip_logits is None:
            skip_logits = self.training and not (labels is None and shift_labels is None)
        if skip_logits and labels is None and shift_labels is None:
            raise ValueError("skip_logits=True makes the loss alone, which needs labels: give labels, or leave it out")
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            pixel_values=pixel_values,
            image_row=image_row,
            image_index=image_index,
            query_turn=query_turn,
            question_turn=question_turn,
            sample_index=sample_index,
            cache=one_cache(cache, past_key_values),
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            mm_encoder_outputs=mm_encoder_outputs,
            image_views=image_views,
            return_dict=True,
            **kwargs,
        )
        loss = logits = predicted = None
        if skip_logits:
            targets = next_tokens(labels) if shift_labels is None and labels is not None else shift_labels
            assert targets is not None
            loss, predicted = self._loss_alone(outputs.last_hidden_state, targets, num_items_in_batch)
        else:
            kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
            logits = self.lm_head(outputs.last_hidden_state[:, kept])
        if logits is not None and not (labels is None and shift_labels is None):
            loss = self.loss_function(
                logits=logits,
                labels=labels,
                vocab_size=self.config.text_config.vocab_size,
                num_items_in_batch=num_items_in_batch,
                shift_labels=shift_labels,
            )
        return FlashSlothCausalLMOutput(
            loss=loss,
            logits=logits,
            predicted=predicted,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            image_outputs=outputs.image_outputs,
            **{CACHE_NAME: getattr(outputs, CACHE_NAME)},
        )

    def _loss_alone(
        self, hidden_states: torch.Tensor, targets: torch.Tensor, num_items_in_batch: torch.Tensor | int | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The loss [] of hidden states float [B, T, D], and in evaluation the most likely tokens, int64 [B, T]."""
        losses, supervised = token_losses(self.lm_head, hidden_states, targets)
        count = supervised.sum() if num_items_in_batch is None else num_items_in_batch
        if isinstance(count, torch.Tensor):
            count = count.to(hidden_states.device)
        predicted = None
        if losses.predicted is not None:
            predicted = torch.zeros_like(supervised, dtype=torch.long).masked_scatter(supervised, losses.predicted)
        return losses.total / count, predicted


__all__ = [
    "FlashSlothForConditionalGeneration",
    "FlashSlothModel",
    "FlashSlothPreTrainedModel",
]
