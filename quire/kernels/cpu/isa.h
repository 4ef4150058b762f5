// Which instruction set the kernels use: found out once, or forced by a name.
// Knows: what this processor can do. Does not know: kernels, the environment variable (quire/ops/device.py reads it).
#pragma once
#include <string>

namespace quire {

// amx: avx512, and 8 tile registers whose products the table of amx has in place of some kernels of avx512 (table.h).
enum class Isa { generic, avx2, avx512, amx };

// The widest instruction set that this machine has and this build contains.
Isa best_isa();

// "generic", "avx2", "avx512" or "amx".
const char* isa_name(Isa isa);

// True and `isa` set when `name` is one of the four names.
bool parse_isa(const std::string& name, Isa& isa);

// What the machine (or the build) lacks for `isa`, as words such as "AVX512_BF16"; empty when nothing. Of amx the process has to
// ask the operating system for leave, once and for all its threads; the first call does.
std::string missing_for(Isa isa);

}  // namespace quire
