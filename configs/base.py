"""base: every field of a configuration, once, with its unit; the others are it plus differences.

Command:  none, it is not meant to be run by itself; see configs/nano.py.
Hardware: none.
Time:     none.
"""

from ml_collections import ConfigDict, config_dict


def get_config() -> ConfigDict:
    cfg = ConfigDict()
    cfg.name = "base"
    cfg.seed = 0

    model = cfg.model = ConfigDict()
    # Backbone: "efficientnet_lite0" (pretrained, frozen) | "patch" (reshape + dense).
    model.backbone = "efficientnet_lite0"
    model.level = "7x7x320"  # where the convolutional backbone is read: "7x7x320" | "14x14x112"
    model.patch = 16  # side of a patch in pixels, for the patch backbone
    model.merge = 2  # backbone features merged per side into one encoder token: 7x7 -> 4x4
    model.image_side = 224  # pixels, square
    model.line_height = 32  # pixels
    model.line_width = 256  # pixels
    model.line_stride = 4  # pixels from one text column to the next; a column is three strides wide
    model.width = 192  # d
    model.heads = 6  # query heads
    model.kv_heads = 2  # key and value heads (grouped-query attention)
    model.mlp_ratio = 3  # MLP width over d
    model.encoder_blocks = 3
    model.decoder_blocks = 3
    model.text_blocks = 1  # blocks of the text tower
    model.head_width = 640  # hidden width between backbone features and image embedding
    model.embed_dim = 256  # shared image/text embedding
    model.vocab_size = 8000  # SentencePiece pieces, task and location tokens included
    model.max_text = 64  # text tokens the decoder can hold: prompt and answer together
    model.charset_size = 95  # characters the line reader knows (printable ASCII)
    model.feature_dropout = 0.25  # share of backbone channels dropped per picture in training

    data = cfg.data = ConfigDict()
    data.emoji_views = 8  # augmented views cached per picture, besides the plain one
    data.stamp_views = 8
    data.scene_views = 0  # composites: colour and light only, the frame stays
    data.crowded_weight = 0.4  # sampling weight of flags and letters, which crowd out other names
    data.decoder_tokens = 20  # longest caption, or question and answer, task tokens included
    data.row_tokens = 40  # texts about one picture share a row: English first, or questions
    data.name_tokens = 12  # the same for the pictures of mix.names
    data.answer_tokens = 12  # room for the answers in a row of questions; a step shares its room
    data.text_tokens = 16  # longest text given to the text tower
    data.line_chars = 24  # longest training line, characters
    data.dictionary_words = 12_000  # WordNet nouns the text tower is distilled on
    data.limit = config_dict.placeholder(int)  # pictures per corpus, for smoke runs

    # Pictures, lines and texts of one step, by task: the mixture. Zero leaves a task out.
    mix = cfg.mix = ConfigDict()
    mix.emoji = 16
    mix.stamps = 4
    mix.names = 128  # more emoji and stamps, by their embedding alone: no encoder, so cheap
    mix.spoken = 32  # names without a picture: captions said from the prototypes's vectors
    mix.composites = 6  # composite pictures with their captions
    mix.composites_vqa = 32
    mix.easy_vqa = 12
    mix.lines = 40
    mix.texts = 128  # captions and dictionary words for the text tower

    # Weight of each loss in the sum.
    loss = cfg.loss = ConfigDict()
    loss.caption = 1.0
    loss.name = 1.0  # captions from the image embedding alone
    loss.spoken = 1.0  # captions from the prototypes's vectors
    loss.spoken_noise = 2.0  # most noise on such a vector, of length 1
    loss.vqa = 2.0
    loss.retrieval = 1.0
    loss.lines = 2.0
    loss.text_caption = 2.0  # text tower against the caption prototypes
    loss.text_teacher = 2.0  # text tower against the sentence teacher on dictionary words
    loss.residual_keep = 0.75  # chance that a caption keeps its free residual in a step

    # The backbone's last blocks, tuned on names of emoji and stamps before its features are cached.
    tune = cfg.tune = ConfigDict()
    tune.steps = 0  # 0 leaves the backbone as ImageNet left it
    tune.head_steps = 1_500  # steps of the image embedding alone before that
    tune.batch = 64  # pictures a step
    tune.learning_rate = 3e-4  # peak

    train = cfg.train = ConfigDict()
    train.steps = 10_000
    train.learning_rate = 1.5e-3  # peak
    train.warmup_steps = 300
    train.weight_decay = 0.05
    train.b2 = 0.98
    train.clip_norm = 1.0
    train.log_every = 50  # steps
    train.checkpoint_every = 500  # steps
    train.keep_checkpoints = 2
    train.mesh_data = 1  # devices along the batch
    train.mesh_model = 1  # devices along the width
    train.prefetch = 4  # batches built ahead

    # The text tower alone, against the finished prototypes, after the last step.
    align = cfg.align = ConfigDict()
    align.steps = 0  # 0 leaves the tower as the run left it
    align.batch = 512  # texts a step: half captions, half dictionary words
    align.learning_rate = 2e-3  # peak
    align.word_weight = 0.5  # of the words' distance against the captions'

    # Quantization-aware training: a run of its own, from the end of a float one, which teaches it.
    quant = cfg.quant = ConfigDict()
    quant.start = ""  # the float run: its folder, or its name in <data folder>/runs; "": none
    # "PATTERN WEIGHTS [INPUTS] [SCALE]": the first that matches the path of a weight decides.
    # Weights: "float" | "int2" | "ternary" | "seq" | "int4" | "int8". Inputs: "float" | "int8", per
    # token | "int8_static", per tensor, calibrated. Scale: "learned" | "rms" | "absmean".
    quant.rules = ()
    quant.scale_start = "mse"  # first scales: "mse" | "rms" | "absmean"
    quant.backbone_steps = (
        0  # steps that train the backbone's end with weights below 8 bits; 0: they round
    )
    quant.share = 1.0  # of the steps: the last ones round, those before train on in float
    quant.scale_rate = 0.1  # learning rate of learned scales over that of the weights
    quant.freeze_from = (
        1.0  # share of the steps after which oscillating weights are frozen; 1: none
    )
    quant.temperature = 1.0  # of teacher's and student's logits
    quant.teach_logits = 1.0  # next tokens against the teacher's
    quant.teach_lines = 1.0  # columns of text lines against the teacher's
    quant.teach_embeddings = 1.0  # image and text embeddings against the teacher's
    return cfg
