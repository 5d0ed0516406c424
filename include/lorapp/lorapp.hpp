// All of lorapp, room by room; include single headers where compile time matters.
// Namespace lorapp; every failure is a lorapp::Error.
#pragma once

#include <lorapp/error.hpp>
#include <lorapp/version.hpp>

#include <lorapp/quant/backend.hpp>
#include <lorapp/quant/config.hpp>
#include <lorapp/quant/int8_weight.hpp>
#include <lorapp/quant/ops.hpp>
#include <lorapp/quant/quantized_tensor.hpp>

#include <lorapp/io/checkpoint.hpp>
#include <lorapp/io/checkpoint_writer.hpp>
#include <lorapp/io/dtype.hpp>
#include <lorapp/io/gguf.hpp>
#include <lorapp/io/hub_cache.hpp>
#include <lorapp/io/hub_download.hpp>
#include <lorapp/io/memory.hpp>
#include <lorapp/io/safetensors.hpp>

#include <lorapp/data/batch.hpp>
#include <lorapp/data/chat_template.hpp>
#include <lorapp/data/dolly.hpp>
#include <lorapp/data/example.hpp>
#include <lorapp/data/prompt_template.hpp>
#include <lorapp/data/tokenizer.hpp>

#include <lorapp/nn/causal_lm.hpp>
#include <lorapp/nn/linear.hpp>
#include <lorapp/nn/quantize_pretrained.hpp>
#include <lorapp/nn/traverse.hpp>

#include <lorapp/peft/convert.hpp>
#include <lorapp/peft/count.hpp>
#include <lorapp/peft/export_gguf.hpp>
#include <lorapp/peft/lora_config.hpp>
#include <lorapp/peft/merge_pretrained.hpp>
#include <lorapp/peft/peft_model.hpp>

#include <lorapp/train/callbacks.hpp>
#include <lorapp/train/divergence.hpp>
#include <lorapp/train/evaluate.hpp>
#include <lorapp/train/trainer.hpp>
#include <lorapp/train/training_arguments.hpp>

#include <lorapp/generate/generate.hpp>
#include <lorapp/generate/generation_config.hpp>
#include <lorapp/generate/text_metrics.hpp>
