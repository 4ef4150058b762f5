#include "isa.h"

#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace quire {
namespace {

struct Feature {
    const char* name;
    bool present;
};

#if defined(__x86_64__)
// __builtin_cpu_supports also asks the operating system (XGETBV) whether it saves the wide registers.
template <size_t N>
std::string lacking(const Feature (&features)[N]) {
    std::string words;
    for (const Feature& feature : features) {
        if (!feature.present) words += (words.empty() ? "" : ", ") + std::string(feature.name);
    }
    return words;
}

// Linux saves the 8 KiB of tiles only for processes that asked (arch_prctl, ARCH_REQ_XCOMP_PERM for XTILEDATA); it refuses where a
// thread's signal stack is too small for them.
bool ask_for_tiles() {
#if defined(__linux__)
    constexpr long kRequest = 0x1023, kTileData = 18;
    static const bool granted = syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
    return granted;
#else
    return false;
#endif
}
#endif

}  // namespace

const char* isa_name(Isa isa) {
    switch (isa) {
        case Isa::avx2: return "avx2";
        case Isa::avx512: return "avx512";
        case Isa::amx: return "amx";
        default: return "generic";
    }
}

bool parse_isa(const std::string& name, Isa& isa) {
    for (Isa candidate : {Isa::generic, Isa::avx2, Isa::avx512, Isa::amx}) {
        if (name == isa_name(candidate)) {
            isa = candidate;
            return true;
        }
    }
    return false;
}

std::string missing_for(Isa isa) {
    if (isa == Isa::generic) return "";
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (isa == Isa::avx2) {
        const Feature needed[] = {{"AVX2", __builtin_cpu_supports("avx2") != 0},
                                  {"FMA", __builtin_cpu_supports("fma") != 0},
                                  {"F16C", __builtin_cpu_supports("f16c") != 0}};
        return lacking(needed);
    }
    const Feature needed[] = {{"AVX2", __builtin_cpu_supports("avx2") != 0},
                              {"FMA", __builtin_cpu_supports("fma") != 0},
                              {"F16C", __builtin_cpu_supports("f16c") != 0},
                              {"AVX512F", __builtin_cpu_supports("avx512f") != 0},
                              {"AVX512BW", __builtin_cpu_supports("avx512bw") != 0},
                              {"AVX512VL", __builtin_cpu_supports("avx512vl") != 0},
                              {"AVX512DQ", __builtin_cpu_supports("avx512dq") != 0},
                              {"AVX512_BF16", __builtin_cpu_supports("avx512bf16") != 0},
                              {"AVX512_VNNI", __builtin_cpu_supports("avx512vnni") != 0}};
    std::string words = lacking(needed);
    if (isa == Isa::avx512 || !words.empty()) return words;
    const Feature tiles[] = {{"AMX_TILE", __builtin_cpu_supports("amx-tile") != 0},
                             {"AMX_BF16", __builtin_cpu_supports("amx-bf16") != 0},
                             {"AMX_INT8", __builtin_cpu_supports("amx-int8") != 0}};
    words = lacking(tiles);
    return words.empty() && !ask_for_tiles() ? "the operating system's leave to use AMX tiles" : words;
#else
    return "an x86-64 processor";
#endif
}

Isa best_isa() {
    for (Isa isa : {Isa::amx, Isa::avx512, Isa::avx2}) {
        if (missing_for(isa).empty()) return isa;
    }
    return Isa::generic;
}

}  // namespace quire
