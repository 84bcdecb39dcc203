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
    data.vocabulary = "nano"  # in <data folder>/vocabularies; made where it is missing
    # Corpus -> augmented views cached per picture besides the plain one, where they differ from
    # those of its entry in data/registry.py.
    data.views = ConfigDict()
    data.crowded_weight = 0.4  # sampling weight of flags and letters, which crowd out other names
    data.decoder_tokens = 20  # longest caption, or question and answer, task tokens included
    data.row_tokens = 40  # texts about one picture share a row: English first, or questions
    data.name_tokens = 12  # the same for the pictures of batch.names
    data.answer_tokens = 12  # room for the answers in a row of questions; a step shares its room
    data.text_tokens = 16  # longest text given to the text tower
    data.line_chars = 24  # longest training line, characters
    data.dictionary_words = 12_000  # WordNet nouns the text tower is distilled on
    data.limit = config_dict.placeholder(int)  # pictures per corpus, for smoke runs

    # The mixture: corpus -> weight. The corpora that have a task share its examples by weight.
    mix = cfg.mix = ConfigDict()
    mix.emoji = 16.0
    mix.stamps = 4.0
    mix.composites = 6.0
    mix.easy_vqa = 2.25
    mix.ocr_lines = 1.0

    # Examples of one step, by task. Zero leaves a task out.
    batch = cfg.batch = ConfigDict()
    batch.captions = 26  # pictures with their captions
    batch.names = 128  # more named pictures, by their embedding alone: no encoder, so cheap
    batch.spoken = 32  # names without a picture: captions decoded from the prototypes' vectors
    batch.questions = 44  # pictures with questions about them
    batch.lines = 40  # lines of text
    batch.texts = 128  # captions and dictionary words for the text tower

    # The text prototypes: the captions that pictures are classified over.
    prototypes = cfg.prototypes = ConfigDict()
    prototypes.max_residuals = 16_384  # captions with a free vector of their own, by frequency
    prototypes.negatives = 0  # captions drawn for a step besides its own; 0: all, in every step

    # Weight of each loss in the sum.
    loss = cfg.loss = ConfigDict()
    loss.caption = 1.0
    loss.name = 1.0  # captions from the image embedding alone
    loss.spoken = 1.0  # captions from the prototypes' vectors
    loss.spoken_noise = 2.0  # most noise on such a vector, of length 1
    loss.vqa = 2.0
    loss.retrieval = 1.0
    loss.lines = 2.0
    loss.text_caption = 2.0  # text tower against the caption prototypes
    loss.text_teacher = 2.0  # text tower against the sentence teacher on dictionary words
    loss.residual_keep = 0.75  # chance that a caption keeps its free residual in a step

    # The backbone's last blocks, tuned on the names of drawings before its features are cached.
    tune = cfg.tune = ConfigDict()
    tune.steps = 0  # 0 leaves the backbone as ImageNet left it
    tune.batch = 64  # pictures a step
    tune.learning_rate = 3e-4  # peak
    tune.residual_keep = 0.5  # chance that a caption keeps its free residual in a step
    tune.head_steps = 1_500  # steps of the image embedding alone before that
    tune.head_batch = 256  # pictures a step
    tune.head_views = 3  # views of each picture it sees
    tune.head_learning_rate = 2e-3  # peak
    tune.warmup_share = 0.05  # of the steps
    tune.final_rate = 0.01  # last learning rate over the peak: a cosine leads there
    tune.weight_decay = 0.05  # of matrices
    tune.b2 = 0.98  # of AdamW; b1 is 0.9 everywhere
    tune.clip_norm = 1.0  # longest gradient; 0: any
    tune.log_every = 200  # steps
    tune.checkpoint_every = 200  # steps; 0: none

    train = cfg.train = ConfigDict()
    train.steps = 10_000
    train.learning_rate = 1.5e-3  # peak
    train.warmup_steps = 300
    train.warmup_share = 0.0  # the warm-up of a run is counted in steps
    train.final_rate = 0.01  # last learning rate over the peak
    train.weight_decay = 0.05
    train.b2 = 0.98
    train.clip_norm = 1.0
    train.log_every = 50  # steps
    train.checkpoint_every = 500  # steps
    train.keep_checkpoints = 2
    train.statistics_pictures = 4_096  # that give the channels of features mean 0 and deviation 1
    train.validate_every = 500  # steps from one loss on the "val" splits to the next; 0: never
    train.validation_batches = 8  # of a step's size, the same at every validation
    train.validation_pictures = 512  # of each "val" split, at most
    train.patience = 0  # validations without a better loss before the run stops early; 0: never
    train.mesh_data = 1  # devices along the batch
    train.mesh_model = 1  # devices along the width
    train.prefetch = 4  # batches built ahead

    # The text tower alone, against the finished prototypes, after the last step.
    align = cfg.align = ConfigDict()
    align.steps = 0  # 0 leaves the tower as the run left it
    align.batch = 512  # texts a step: half captions, half dictionary words
    align.learning_rate = 2e-3  # peak
    align.word_weight = 0.5  # of the words' distance against the captions'
    align.warmup_share = 0.05
    align.final_rate = 0.0
    align.weight_decay = 0.01
    align.b2 = 0.98
    align.clip_norm = 1.0
    align.log_every = 250  # steps
    align.checkpoint_every = 0  # it takes minutes

    # Quantization-aware training: a run of its own, from the end of a float one, which teaches it.
    quant = cfg.quant = ConfigDict()
    # The float run: its folder, or its name in <data folder>/runs; "": none. NAME@FINGERPRINT asks
    # for a model of these weights; prototypes, fitted anew to a run regained, have no part in it.
    quant.start = ""
    # "PATTERN WEIGHTS [INPUTS] [SCALE]": the first that matches the path of a weight decides.
    # Weights: "float" | "int2" | "ternary" | "seq" | "int4" | "int8". Inputs: "float" | "int8", per
    # token | "int8_static", per tensor, calibrated. Scale: "learned" | "rms" | "absmean".
    quant.rules = ()
    quant.scale_start = "mse"  # first scales: "mse" | "rms" | "absmean"
    quant.share = 1.0  # of the steps: the last ones round, those before train on in float
    quant.scale_rate = 0.1  # learning rate of learned scales over that of the weights
    quant.freeze_from = 1.0  # share of the steps after which oscillating weights freeze; 1: none
    quant.temperature = 1.0  # of teacher's and student's logits
    quant.distill_logits = 1.0  # weight of next tokens against the teacher's
    quant.distill_lines = 1.0  # of columns of text lines
    quant.distill_embeddings = 1.0  # of image and text embeddings

    # Weights of the backbone's last blocks below eight bits, trained on their grids.
    reconstruction = quant.reconstruction = ConfigDict()
    reconstruction.steps = 0  # 0: such weights are rounded without training (PTQ)
    reconstruction.batch = 64  # pictures a step
    reconstruction.learning_rate = 1e-3  # peak
    reconstruction.warmup_share = 0.05
    reconstruction.final_rate = 0.01
    reconstruction.weight_decay = 0.05
    reconstruction.b2 = 0.98
    reconstruction.clip_norm = 1.0
    reconstruction.log_every = 200  # steps
    reconstruction.checkpoint_every = 200  # steps

    # The ranges of activations that are rounded by one range a layer.
    calibration = quant.calibration = ConfigDict()
    calibration.batches = 4  # of a training step
    calibration.sample = 20_000  # values of a layer's inputs drawn from each

    # Prototypes fitted to a finished model, for a run regained from its bundle, which holds none.
    regain = cfg.regain = ConfigDict()
    regain.steps = 3_000
    regain.pictures = 256  # a step, beside align.batch texts
    regain.learning_rate = 1e-2  # peak
    regain.warmup_share = 0.0
    regain.final_rate = 0.0
    regain.weight_decay = 0.0
    regain.b2 = 0.98
    regain.clip_norm = 0.0
    regain.log_every = 500  # steps
    regain.checkpoint_every = 0
    return cfg
