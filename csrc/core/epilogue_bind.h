// The activation as Python names it, and the epilogue by torch's own operations, where no kernel has it.
#pragma once

#include <optional>
#include <string>

#include "core/arguments.h"
#include "core/epilogue.h"

namespace fastcv {

inline Activation activation_of(const std::optional<std::string>& name) {
  if (!name) return Activation::kNone;
  if (*name == "relu") return Activation::kRelu;
  if (*name == "leaky_relu") return Activation::kLeakyRelu;
  if (*name == "silu") return Activation::kSilu;
  refuse("activation", "be None, 'relu', 'leaky_relu' or 'silu'", "'" + *name + "'");
}

// Adds `residual`, where there is one, to a tensor that nobody else has, and activates it.
inline pybind11::object finish_with_torch(pybind11::object output, const OptionalTensor& residual,
                                          Activation activation, double negative_slope) {
  const pybind11::object functional = pybind11::module_::import("torch").attr("nn").attr("functional");
  if (residual) output = output.attr("add_")(pybind11::handle(residual.object));
  if (activation == Activation::kRelu) output = output.attr("relu_")();
  if (activation == Activation::kLeakyRelu) output = functional.attr("leaky_relu")(output, negative_slope, true);
  if (activation == Activation::kSilu) output = functional.attr("silu")(output, true);
  return output;
}

}  // namespace fastcv
