// Sampling for Python: every range that the kernel relies on is checked here.
#include <nanobind/stl/optional.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "bindings.h"
#include "token_counts.h"

namespace quire {
namespace {

constexpr int64_t kMaxVocab = int64_t{1} << 20;  // so that a sum of weights fits 63 bits
constexpr float kLeastNormal = 1.17549435e-38f;

using Ids = Array<const int32_t, 1>;

void require_ids(const Ids& ids, int64_t vocab, const char* what) {
    uint32_t highest = 0;  // a negative id becomes a large one
    for (size_t i = 0; i < ids.shape(0); ++i) highest = std::max(highest, uint32_t(ids.data()[i]));
    require(ids.shape(0) == 0 || int64_t{highest} < vocab, what);
}

bool span_within(int32_t first, int32_t num, size_t end) {
    return first >= 0 && num >= 0 && int64_t{first} + num <= int64_t(end);
}

void require_row(const SampleRow& row, int64_t vocab, size_t num_draws, size_t num_bias, size_t top_width, bool has_mask) {
    require(row.top_p > 0.0 && row.top_p <= 1.0, "sample: top_p must be above 0 and at most 1");
    require(row.min_p >= 0.0 && row.min_p <= 1.0, "sample: min_p must be from 0 to 1");
    require(row.inv_temperature >= 0.0f && row.inv_temperature <= 3.4028235e38f, "sample: inv_temperature must be finite and not negative");
    require(row.repetition >= kLeastNormal && row.repetition <= 3.4028235e38f, "sample: repetition must be a positive normal float");
    require(row.presence - row.presence == 0.0 && row.frequency - row.frequency == 0.0, "sample: presence and frequency must be finite");
    require(row.top_k >= 0, "sample: top_k must be 0 or more");
    require(row.num_top <= int32_t(top_width), "sample: top_ids_RK must have a column for each of num_top");
    require(row.given < vocab, "sample: given must be below the vocabulary");
    require(row.masked >= 0 && row.masked <= 3, "sample: masked must be 0 to 3");
    require(!row.has_mask() || has_mask, "sample: a row asks for a mask, and there is none");
    require(span_within(row.first_draw, row.num_draws, num_draws), "sample: a row's draws must lie within indices_D");
    require(span_within(row.first_bias, row.num_bias, num_bias), "sample: a row's biases must lie within bias_ids_B");
}

// The counts of each row (null: none); they must not change until the launch is over, which the GIL's other holders respect because
// only their owner adds to them.
std::vector<TokenCountsView> views_of(const nb::list& counts, size_t rows, int64_t vocab) {
    require(counts.size() == rows, "sample: counts must have an entry for each row");
    std::vector<TokenCountsView> views;
    views.reserve(rows);
    for (nb::handle entry : counts) {
        if (entry.is_none()) {
            views.push_back({nullptr, 0});
            continue;
        }
        const TokenCounts& of = nb::cast<const TokenCounts&>(entry);
        require(of.largest_id() < vocab, "sample: counts hold a token beyond the vocabulary");
        views.push_back(of.view());
    }
    return views;
}

int64_t sample(Device& device, Array<float, 2> logits, Array<const uint8_t, 2> params, Ids indices, Ids bias_ids,
               Array<const float, 1> bias_values, std::optional<nb::list> counts, std::optional<Array<const int32_t, 2>> mask,
               Array<int32_t, 1> tokens, Array<double, 1> logprobs, Array<int32_t, 1> ranks, Array<int32_t, 2> top_ids,
               Array<double, 2> top_logprobs, Array<int32_t, 1> status) {
    const size_t rows = logits.shape(0), num_draws = indices.shape(0), num_bias = bias_ids.shape(0);
    const int64_t vocab = int64_t(logits.shape(1));
    require(vocab >= 1 && vocab <= kMaxVocab, "sample: logits_RV must have 1 to 1048576 columns");
    require(params.shape(0) == rows && params.shape(1) == sizeof(SampleRow), "sample: params_R must have a record of ROW for each row");
    require(reinterpret_cast<uintptr_t>(params.data()) % alignof(SampleRow) == 0, "sample: params_R must be aligned to 8 bytes");
    require(bias_values.shape(0) == num_bias, "sample: bias_ids_B and bias_values_B must be equally long");
    require(tokens.shape(0) == num_draws && logprobs.shape(0) == num_draws && ranks.shape(0) == num_draws,
            "sample: tokens_D, logprobs_D and ranks_D must be as long as indices_D");
    require(top_ids.shape(0) == rows && top_logprobs.shape(0) == rows && status.shape(0) == rows && top_ids.shape(1) == top_logprobs.shape(1),
            "sample: top_ids_RK, top_logprobs_RK and status_R must have a row for each row of logits_RV");
    require(!mask || (mask->shape(0) == rows && int64_t(mask->shape(1)) == (vocab + 31) / 32),
            "sample: mask_RW must have a row for each row of logits_RV and a bit for each column");
    const SampleRow* how = reinterpret_cast<const SampleRow*>(params.data());
    for (size_t r = 0; r < rows; ++r) require_row(how[r], vocab, num_draws, num_bias, top_ids.shape(1), mask.has_value());
    require_ids(bias_ids, vocab, "sample: bias_ids_B must be at least 0 and below the vocabulary");
    const auto views = counts ? views_of(*counts, rows, vocab) : std::vector<TokenCountsView>{};
    const Sample args{logits.data(), how, views.empty() ? nullptr : views.data(), indices.data(), bias_ids.data(), bias_values.data(),
                      mask ? reinterpret_cast<const uint32_t*>(mask->data()) : nullptr, tokens.data(), logprobs.data(), ranks.data(),
                      top_ids.data(), top_logprobs.data(), status.data(), int64_t(rows), vocab, int64_t(top_ids.shape(1))};
    const auto kernel = device.kernels.sample;
    launch(device, [=](Runtime& runtime) { kernel(runtime, args); });
    return int64_t(rows) - std::count(status.data(), status.data() + rows, int32_t{kSampled});
}

void catch_up(TokenCounts& counts, nb::handle history) {
    const nb::object items = nb::steal(PySequence_Fast(history.ptr(), "TokenCounts.catch_up: history must be a sequence of ids"));
    if (!items.is_valid()) throw nb::python_error();
    const Py_ssize_t size = PySequence_Fast_GET_SIZE(items.ptr());
    require(size >= counts.num_tokens(), "TokenCounts.catch_up: history must hold every token that was counted");
    for (Py_ssize_t i = Py_ssize_t(counts.num_tokens()); i < size; ++i) {
        const long id = PyLong_AsLong(PySequence_Fast_GET_ITEM(items.ptr(), i));
        if (id == -1 && PyErr_Occurred()) throw nb::python_error();
        require(id >= 0 && id < kMaxVocab, "TokenCounts.catch_up: an id must be at least 0 and below 1048576");
        counts.add(int32_t(id));
    }
}

}  // namespace

void bind_sample(nb::module_& m) {
    const auto exact = [] { return nb::arg().noconvert(); };
    nb::class_<TokenCounts>(m, "TokenCounts")
        .def(nb::init<int64_t>())
        .def("catch_up", &catch_up)
        .def_prop_ro("num_tokens", &TokenCounts::num_tokens)
        .def("__len__", [](const TokenCounts& counts) { return counts.view().size; })
        .def("items", [](const TokenCounts& counts) {
            nb::list pairs;
            for (int64_t i = 0; i < counts.view().size; ++i) {
                pairs.append(nb::make_tuple(counts.view().data[i].id, counts.view().data[i].in_answer));
            }
            return pairs;
        });
    m.def("sample", &sample, nb::arg(), exact(), exact(), exact(), exact(), exact(), nb::arg().none(), exact().none(), exact(), exact(),
          exact(), exact(), exact(), exact());
}

}  // namespace quire
