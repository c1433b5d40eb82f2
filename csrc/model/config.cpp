#include "model/config.h"

#include <stdexcept>
#include <string>

namespace medusa {
namespace {

void require(bool ok, const char* field, const char* need, int64_t got) {
  if (ok) return;
  throw std::invalid_argument(std::string("config: ") + field + ", needs " + need + ", got " +
                              std::to_string(got));
}

void require_positive(const char* field, int32_t value) {
  require(value > 0, field, "a positive number", value);
}

}  // namespace

void check_config(const ModelConfig& config) {
  require_positive("layers", config.num_layers());
  require_positive("hidden_size", config.hidden_size);
  require_positive("num_query_heads", config.num_query_heads);
  require_positive("num_kv_heads", config.num_kv_heads);
  require_positive("head_size", config.head_size);
  require_positive("ffn_size", config.ffn_size);
  require_positive("vocab_size", config.vocab_size);
  require(config.num_query_heads % config.num_kv_heads == 0, "num_query_heads",
          "a multiple of num_kv_heads", config.num_query_heads);
  require(config.head_size % 8 == 0 && config.head_size <= 256, "head_size",
          "a multiple of 8 up to 256", config.head_size);
  const int64_t num_tables = static_cast<int64_t>(config.inverse_frequencies.size());
  for (const std::vector<double>& table : config.inverse_frequencies) {
    const int64_t size = static_cast<int64_t>(table.size());
    require(size == config.head_size / 2, "inverse_frequencies", "head_size / 2 numbers", size);
  }
  for (const LayerSpec& layer : config.layers) {
    require(layer.window >= 0, "layers: window", "0 (none) or a positive window", layer.window);
    require(layer.rope >= 0 && layer.rope < num_tables, "layers: rope",
            "one of the tables of inverse_frequencies", layer.rope);
  }
}

}  // namespace medusa
