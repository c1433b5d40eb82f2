#include "cpu/runtime/isa.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <stdexcept>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__linux__) && defined(__aarch64__)
#include <sys/auxv.h>
#endif

#include "cpu/isa/fill.h"

namespace medusa::cpu {
namespace {

struct Isa {
  const char* name;
  bool (*is_supported)();
  void (*fill)(KernelTable&);
};

#if defined(__x86_64__)

struct CpuId {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

CpuId cpuid(unsigned leaf, unsigned subleaf) {
  CpuId id;
  __get_cpuid_count(leaf, subleaf, &id.eax, &id.ebx, &id.ecx, &id.edx);
  return id;
}

bool bit(unsigned word, int index) { return (word >> index & 1u) != 0; }

/// Whether the operating system saves these parts of the register state (Intel SDM 1, 13.3).
bool saves_state(uint64_t mask) {
  if (!bit(cpuid(1, 0).ecx, 27)) return false;  // OSXSAVE
  uint32_t low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return ((uint64_t{high} << 32 | low) & mask) == mask;
}

bool has_avx2() {
  const CpuId one = cpuid(1, 0), seven = cpuid(7, 0);
  return saves_state(0x6) && bit(one.ecx, 12) && bit(one.ecx, 28) && bit(one.ecx, 29) &&
         bit(seven.ebx, 5);  // FMA, AVX, F16C; AVX2
}

bool has_avx2_vnni() { return has_avx2() && bit(cpuid(7, 1).eax, 4); }

bool has_avx512() {
  const CpuId seven = cpuid(7, 0);
  return has_avx2() && saves_state(0xe6) && bit(seven.ebx, 16) && bit(seven.ebx, 17) &&
         bit(seven.ebx, 30) && bit(seven.ebx, 31) && bit(seven.ecx, 11);  // F, DQ, BW, VL; VNNI
}

constexpr Isa kIsas[] = {
    {"avx512", has_avx512,
     [](KernelTable& table) {
       avx512::fill_linear(table);
       avx512::fill_attention(table);
     }},
    {"avx2_vnni", has_avx2_vnni,
     [](KernelTable& table) {
       avx2_vnni::fill_linear(table);
       avx2::fill_attention(table);
     }},
    {"avx2", has_avx2,
     [](KernelTable& table) {
       avx2::fill_linear(table);
       avx2::fill_attention(table);
     }},
#elif defined(__aarch64__)

bool has_neon() { return true; }

bool has_neon_dotprod() {
#if defined(__APPLE__)
  return true;
#elif defined(__linux__)
  constexpr unsigned long kAsimdDp = 1ul << 20;  // HWCAP_ASIMDDP
  return (getauxval(AT_HWCAP) & kAsimdDp) != 0;
#else
  return false;
#endif
}

constexpr Isa kIsas[] = {
    {"neon_dotprod", has_neon_dotprod,
     [](KernelTable& table) {
       neon_dotprod::fill_linear(table);
       neon::fill_attention(table);
     }},
    {"neon", has_neon,
     [](KernelTable& table) {
       neon::fill_linear(table);
       neon::fill_attention(table);
     }},
#else
constexpr Isa kIsas[] = {
#endif
    {"generic", [] { return true; },
     [](KernelTable& table) {
       generic::fill_linear(table);
       generic::fill_attention(table);
     }},
};

std::vector<KernelTable> make_tables() {
  std::vector<KernelTable> tables;
  for (const Isa& isa : kIsas) {
    if (!isa.is_supported()) continue;
    KernelTable table{};
    table.name = isa.name;
    isa.fill(table);
    fill_index(table);
    fill_heads(table);
    tables.push_back(table);
  }
  return tables;
}

const std::vector<KernelTable>& tables() {
  static const std::vector<KernelTable> tables = make_tables();
  return tables;
}

const KernelTable& find_table(const std::string& argument, const std::string& name) {
  std::string available;
  for (const KernelTable& table : tables()) {
    if (name == table.name) return table;
    available += std::string(available.empty() ? "" : ", ") + table.name;
  }
  throw std::invalid_argument(argument + ": needs one of " + available +
                              " on this machine, got \"" + name + "\"");
}

}  // namespace

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const KernelTable& table : tables()) names.emplace_back(table.name);
  return names;
}

const KernelTable& kernel_table() {
  static const KernelTable& chosen = []() -> const KernelTable& {
    const char* name = std::getenv("MEDUSA_ISA");
    return name && *name ? find_table("MEDUSA_ISA", name) : tables().front();
  }();
  return chosen;
}

const KernelTable& kernel_table(const std::string& name) { return find_table("isa", name); }

}  // namespace medusa::cpu
