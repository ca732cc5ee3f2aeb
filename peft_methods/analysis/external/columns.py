"""The columns that a table may have: their fields, kinds of value and names."""

from __future__ import annotations

from dataclasses import dataclass

TEXT = "text"


@dataclass(frozen=True)
class Column:
    """A column that a table may have.

    - `field`: its name here and in `--map`.
    - `kind`: TEXT or a key of `units.UNITS`.
    - `spellings`: lower-case, without a unit, with words joined by `_`; the clearest come first.
    - `row_field`: the field of `ResultRow` that it fills.
    - `bare`: spellings of programs that always write the base unit.
    - `keeps_range`: whether a range (`10-12`) is kept; elsewhere it is no value.
    """

    field: str
    kind: str
    spellings: tuple[str, ...]
    is_series: bool = False
    row_field: str = ""
    bare: frozenset[str] = frozenset()
    keeps_range: bool = False

    @property
    def is_score(self) -> bool:
        """Whether it holds another figure of quality than the accuracy."""
        return self.row_field == "scores"


def _column(
    field: str,
    kind: str,
    spellings: str,
    *,
    series: bool = False,
    fills: str = "",
    bare: str = "",
    ranges: bool = False,
) -> Column:
    names = (field, *spellings.split(), *bare.split())
    return Column(field, kind, names, series, fills or field, frozenset(bare.split()), ranges)


def _scores() -> tuple[Column, ...]:
    names = {
        "f1": "f1_score macro_f1 f1_macro micro_f1 f1_micro weighted_f1 f1_weighted test_f1 "
        "eval_f1 final_f1 test_f1_score f1_measure f_score",
        "exact_match": "em exact_match_accuracy eval_exact_match test_em",
        "rouge1": "rouge_1 r_1",
        "rouge2": "rouge_2 r_2",
        "rougeL": "rougel rouge_l rougelsum rouge_lsum r_l rouge",
        "bleu": "bleu_4 bleu4 sacrebleu bleu_score",
        "meteor": "", "chrf": "", "bertscore": "bert_score bertscore_f1", "cider": "",
        "matthews_correlation": "mcc matthews matthews_corr eval_matthews_correlation",
        "spearman": "spearmanr spearman_correlation eval_spearmanr",
        "pearson": "pearsonr pearson_correlation eval_pearson",
        "auc": "roc_auc auroc", "recall": "eval_recall test_recall",
        "precision_score": "precision eval_precision test_precision",
        "acc_norm": "", "pass@1": "pass_1 pass1", "mc2": "", "average": "avg mean",
    }  # fmt: skip
    return (
        *(_column(name, "score", spelt, fills="scores") for name, spelt in names.items()),
        _column(
            "perplexity", "plain", "ppl test_perplexity eval_perplexity test_ppl", fills="scores"
        ),
        *(
            _column(name, "plain", "", fills="scores")
            for name in ("word_perplexity", "byte_perplexity", "bits_per_byte")
        ),
    )


COLUMNS = (
    _column(
        "method",
        TEXT,
        "methods peft_method fine_tuning_method finetuning_method tuning_method "
        "training_method ft_method adaptation_method adapter_method method_name peft_type "
        "adapter_type finetuning_type fine_tuning_type technique approach strategy "
        "fine_tuning_strategy algorithm peft fine_tuning finetuning tuning adaptation adapter "
        "configuration variant setting setup experiment experiment_name run_name run name "
        "methode verfahren méthode método metodo 方法 微调方法 手法 学習手法 방법 학습_방법 기법",
        fills="name",
    ),
    _column(
        "model",
        TEXT,
        "models base_model backbone model_name model_id pretrained_model base_model_name "
        "base_model_name_or_path model_name_or_path plm llm encoder checkpoint architecture "
        "modell modèle modelo 模型 モデル 모델",
    ),
    _column("data", TEXT, "dataset data_set dataset_name corpus benchmark datensatz 数据集"),
    _column("task", TEXT, "task_name tasks aufgabe tâche tarea 任务 タスク"),
    _column(
        "precision",
        TEXT,
        "dtype mixed_precision torch_dtype data_type quantization quantisation compute_dtype",
    ),
    _column(
        "gpus",
        "plain",
        "num_gpus n_gpus gpu_count gpus_used devices num_devices n_devices world_size gpu数 显卡数",
        fills="device",
    ),
    _column("device", TEXT, "gpu gpus hardware accelerator device_name gpu_type gpu_name"),
    *(
        _column(package, TEXT, f"{package}_version", fills="versions")
        for package in ("torch", "transformers", "peft", "bitsandbytes")
    ),
    _column("targets", TEXT, "target_modules lora_target lora_target_modules target modules"),
    _column("bias", TEXT, "lora_bias bias_setting"),
    _column(
        "accuracy",
        "share",
        "test_accuracy test_acc accuracy_test final_accuracy final_test_accuracy final_acc acc "
        "mean_accuracy average_accuracy avg_accuracy avg_acc accuracy_score best_accuracy "
        "best_test_accuracy test top_1 top1 top_1_accuracy top1_accuracy genauigkeit "
        "précision_test exactitude exactitud 准确率 测试准确率 精度 正解率 정확도 테스트_정확도",
    ),
    _column(
        "validation_accuracy",
        "share",
        "validation_acc val_accuracy val_acc dev_accuracy dev_acc eval_accuracy eval_acc "
        "best_val_accuracy best_val_acc validation val dev 验证准确率",
    ),
    _column("train_accuracy", "share", "train_acc training_accuracy training_acc"),
    _column(
        "majority",
        "share",
        "majority_accuracy majority_class majority_baseline chance chance_level random_baseline",
    ),
    _column(
        "trainable_parameters",
        "count",
        "trainable_params trainable trainable_total_parameters trainable_total_params "
        "trainable_total num_trainable_params num_trainable_parameters trainable_param "
        "tunable_parameters tunable_params trained_parameters trained_params learnable_parameters "
        "learnable_params updated_parameters tuned_parameters tuned_params adapter_params "
        "parameters params param param_count n_params parameter_count trainierbare_parameter "
        "parameter paramètres paramètres_entraînables parámetros parámetros_entrenables "
        "可训练参数 可训练参数量 参数量 参数 学習可能パラメータ数 パラメータ数 "
        "학습_파라미터 학습_가능한_파라미터 파라미터_수",
        fills="trainable",
        ranges=True,
    ),
    _column(
        "total_parameters",
        "count",
        "total_params all_params all_parameters all_param num_total_params total_param total "
        "model_parameters model_params full_params overall_parameters parameters params "
        "总参数 总参数量",
        fills="total",
        ranges=True,
    ),
    _column(
        "trainable_share",
        "share",
        "trainable trainable_percent trainable_percentage trainable_pct trainable_ratio "
        "trainable_fraction percent_trainable percentage_trainable trainable_parameters "
        "trainable_params trainable_param params parameters param params_ratio "
        "params_percent trainable_params_percentage trainable_params_ratio "
        "trainable_params_percent tunable_parameters tuned_parameters tuned_params updated_params "
        "share_of_parameters share_of_total of_total percent_of_total total_params "
        "total_parameters",
        ranges=True,
    ),
    _column(
        "train_seconds",
        "seconds",
        "train_time training_time training_runtime train_duration training_duration total_time "
        "total_training_time total_train_time wall_time wall_clock_time wall_clock training_hours "
        "fine_tuning_time finetuning_time time_to_train train training time runtime duration "
        "elapsed elapsed_time time_taken trainingszeit trainingsdauer zeit dauer temps "
        "temps_d_entraînement durée tiempo tiempo_de_entrenamiento 训练时间 训练时长 时间 "
        "学習時間 訓練時間 학습_시간 훈련_시간",
        bare="train_runtime",
    ),
    # Times that become training times where the epochs or the devices are known.
    _column("epoch_seconds", "seconds", "", fills="train_seconds"),
    _column("gpu_seconds", "seconds", "", fills="train_seconds"),
    _column(
        "step_seconds",
        "seconds",
        "step_time time_per_step iteration_time time_per_iteration step",
        bare="seconds_per_step sec_per_step s_per_step",
    ),
    _column(
        "samples_per_second",
        "plain",
        "train_samples_per_second samples_per_sec samples_s examples_per_second examples_s "
        "samples_sec training_samples_per_second rows_per_second throughput_samples_s",
    ),
    _column(
        "peak_memory",
        "bytes",
        "peak_gpu_memory peak_vram peak_mem peak_gpu_mem peak_memory_usage peak_memory_allocated "
        "peak_gpu_memory_usage peak_gpu_memory_allocated peak_memory_used peak_gpu "
        "accelerator_memory_max peak gpu_memory gpu_memory_usage gpu_mem gpu_usage memory "
        "memory_usage memory_footprint training_memory train_memory gpu_memory_used memory_used "
        "peak_reserved_memory peak_memory_reserved peak_gpu_memory_reserved memory_reserved "
        "max_memory_reserved max_reserved_memory reserved_memory peak_allocated_memory "
        "mem vram gpu_vram vram_usage vram_used gpu_ram cuda_memory speicher gpu_speicher "
        "speicherbedarf mémoire mémoire_gpu memoria memoria_gpu 显存 显存占用 峰值显存 内存 メモリ "
        "メモリ使用量 메모리 메모리_사용량 gpu_메모리 gpu_메모리_사용량",
        ranges=True,
    ),
    _column(
        "max_memory",
        "bytes",
        "maximum_memory max_gpu_memory memory_max max_vram max_memory_allocated max_mem "
        "max_gpu_mem max_memory_usage max",
        fills="maximum_memory",
    ),
    _column(
        "energy",
        "joules",
        "energy_joules energy_consumption energy_used energy_consumed training_energy "
        "total_energy energie énergie energía 能耗",
        fills="energy_joules",
    ),
    _column("epochs", "plain", "epoch num_epochs num_train_epochs n_epochs epochen époques 轮数"),
    _column(
        "steps_per_epoch",
        "count",
        "steps_an_epoch steps_epoch iterations_per_epoch batches_per_epoch",
    ),
    _column(
        "total_steps",
        "count",
        "steps max_steps global_step num_steps train_steps training_steps n_steps iterations",
    ),
    _column(
        "batch_size",
        "count",
        "batch bs train_batch_size effective_batch_size total_batch_size global_batch_size "
        "micro_batch_size per_device_train_batch_size 批大小",
    ),
    _column(
        "max_length",
        "count",
        "max_len max_seq_length max_sequence_length sequence_length seq_len seq_length cutoff_len "
        "max_seq_len context_length",
    ),
    _column("learning_rate", "plain", "lr rate learn_rate lernrate peak_lr 学习率 学習率"),
    _column(
        "learning_rates",
        "plain",
        "rates lr_grid learning_rate_grid rates_tried lrs",
        series=True,
        fills="rates",
    ),
    _column("rank", "plain", "r lora_r lora_rank rank_r peft_rank"),
    _column(
        "virtual_tokens",
        "count",
        "num_virtual_tokens prompt_length prefix_length prompt_tokens prefix_tokens n_tokens",
    ),
    _column("seed", "plain", "random_seed seeds"),
    _column(
        "train_rows",
        "count",
        "train_size train_samples train_examples n_train training_samples training_examples "
        "train_set_size",
    ),
    _column(
        "validation_rows",
        "count",
        "validation_size val_size val_samples validation_samples n_validation n_val eval_samples "
        "dev_size",
    ),
    _column("test_rows", "count", "test_size test_samples test_examples n_test test_set_size"),
    _column("train_losses", "loss", "train_loss training_loss training_losses loss", series=True),
    _column(
        "validation_losses",
        "loss",
        "validation_loss val_loss val_losses eval_loss eval_losses dev_losses",
        series=True,
    ),
    _column(
        "validation_accuracies",
        "share",
        "val_accuracies val_accs eval_accuracies dev_accuracies",
        series=True,
    ),
    *(
        _column(
            f"{split}_class_counts", "count", f"{split}_classes", series=True, fills="class_counts"
        )
        for split in ("train", "validation", "test")
    ),
    *_scores(),
)
