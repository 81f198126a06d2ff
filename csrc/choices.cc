#include "choices.h"

#include <atomic>
#include <map>
#include <memory>

namespace kconv {
namespace {

using Table = std::map<std::pair<int, std::string>, std::string>;

// Read by many threads, replaced as a whole; null while there are none, which
// costs those who ask nothing but a look. Never destroyed: threads of a pool
// may outlive the end of the program.
std::shared_ptr<const Table>& TheTable() {
  static auto* table = new std::shared_ptr<const Table>();
  return *table;
}
std::atomic<bool> is_filled{false};

const char* NameOf(Pass pass) {
  switch (pass) {
    case Pass::kForward:
      return "forward";
    case Pass::kInputGradient:
      return "input_gradient";
    case Pass::kFilterGradient:
      break;
  }
  return "filter_gradient";
}

const char* NameOf(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return "float32";
    case DType::kFloat64:
      return "float64";
    case DType::kBFloat16:
      return "bfloat16";
    case DType::kFloat16:
      break;
  }
  return "float16";
}

}  // namespace

std::string KeyOf(const Problem& problem) {
  const ConvShape& s = problem.shape;
  const bool last = s.layout == Layout::kChannelsLast;
  const int first = kMaxSpatialDims - s.spatial_dims;
  const auto sizes = [&](const int64_t* values) {
    std::string words;
    for (int i = first; i < kMaxSpatialDims; ++i) {
      words += (i > first ? "x" : "") + std::to_string(values[i]);
    }
    return words;
  };
  const std::string channels = std::to_string(s.in_channels);
  std::string key = NameOf(problem.pass);
  key += std::string(" ") + NameOf(problem.dtype);
  key += last ? " channels_last " : " channels_first ";
  key += std::to_string(s.batch) + "x";
  key +=
      last ? sizes(s.input) + "x" + channels : channels + "x" + sizes(s.input);
  key += " " + sizes(s.kernel) + "x" + std::to_string(s.GroupInChannels()) +
         "x" + std::to_string(s.out_channels);
  key += " strides=" + sizes(s.stride) + " dilation=" + sizes(s.dilation);
  key += " padding=";
  for (int i = first; i < kMaxSpatialDims; ++i) {
    key += (i > first ? "," : "") + std::to_string(s.pad_before[i]) + "+" +
           std::to_string(s.pad_after[i]);
  }
  key += " groups=" + std::to_string(s.groups);
  return problem.device == Device::kGpu ? key + " device=gpu" : key;
}

void SetChoices(const MeasuredChoices& choices) {
  auto filled = std::make_shared<const Table>(choices.begin(), choices.end());
  std::atomic_store(&TheTable(), std::shared_ptr<const Table>(filled));
  is_filled = !filled->empty();
}

std::string FindChoice(const Problem& problem, int threads) {
  if (!is_filled) return "";
  const std::shared_ptr<const Table> now = std::atomic_load(&TheTable());
  const auto found = now->find({threads, KeyOf(problem)});
  return found == now->end() ? "" : found->second;
}

}  // namespace kconv
