#include "prepared.h"

#include <algorithm>
#include <cstring>

#include "registry.h"

namespace kconv {
namespace {

constexpr char kMagic[8] = {'k', 'c', 'o', 'n', 'v', 'P', 'F', '\n'};
// Of the header and of every form. To be raised with each change of one.
constexpr int64_t kVersion = 2;

struct alignas(64) Header {
  char magic[8];
  int64_t version;
  char family[16];  // of algorithms
  char isa[16];
  int64_t dtype;
  int64_t kernel[kMaxSpatialDims];
  int64_t channels;  // of a group
  int64_t filters;
  int64_t groups;
  int64_t bytes;
  int64_t reserved[2];  // 0
};
static_assert(sizeof(Header) == 128, "Without padding: it is compared.");

std::string FamilyOf(const Algorithm& algorithm) {
  const std::string name = algorithm.name;
  return name.substr(0, name.find(':'));
}

// The first that has a use for a prepared filter, or null.
const Algorithm* UserOf(const std::string& name, const Problem& problem,
                        Isa isa) {
  for (const Algorithm* algorithm : Named(name)) {
    if (algorithm->prepared_bytes(problem, isa) > 0) return algorithm;
  }
  return nullptr;
}

Header HeaderOf(const Algorithm& user, const Problem& problem, Isa isa) {
  const ConvShape& s = problem.shape;
  Header h;
  std::memset(&h, 0, sizeof(h));
  std::memcpy(h.magic, kMagic, sizeof(kMagic));
  h.version = kVersion;
  FamilyOf(user).copy(h.family, sizeof(h.family) - 1);
  std::string(IsaName(isa)).copy(h.isa, sizeof(h.isa) - 1);
  h.dtype = static_cast<int64_t>(problem.dtype);
  std::copy_n(s.kernel, kMaxSpatialDims, h.kernel);
  h.channels = s.GroupInChannels();
  h.filters = s.out_channels;
  h.groups = s.groups;
  h.bytes = int64_t{sizeof(Header)} + user.prepared_bytes(problem, isa);
  return h;
}

Header Read(const void* prepared) {
  Header h;
  std::memcpy(&h, prepared, sizeof(h));
  return h;
}

// Whether its form is that of this build's kernels for this instruction set.
bool IsReadable(const Header& h, Isa isa) {
  char name[sizeof(h.isa)] = {};
  std::string(IsaName(isa)).copy(name, sizeof(name) - 1);
  return h.version == kVersion && std::memcmp(h.isa, name, sizeof(name)) == 0;
}

std::string Described(const Header& h) {
  std::string kernel;
  for (int64_t size : h.kernel) kernel += std::to_string(size) + "x";
  kernel.pop_back();
  // The bytes may be anything.
  const auto text = [](const char* from, size_t most) {
    std::string name(from, strnlen(from, most));
    for (char& c : name) c = c >= ' ' && c <= '~' ? c : '?';
    return name;
  };
  return "kernel_size=" + kernel + ", channels=" + std::to_string(h.channels) +
         ", filters=" + std::to_string(h.filters) +
         ", groups=" + std::to_string(h.groups) +
         ", bytes=" + std::to_string(h.bytes) +
         ", isa=" + text(h.isa, sizeof(h.isa)) +
         ", dtype=" + std::to_string(h.dtype) +
         ", version=" + std::to_string(h.version);
}

}  // namespace

int64_t PreparedBytes(const std::string& algorithm, const Problem& problem,
                      Isa isa) {
  const Algorithm* user = UserOf(algorithm, problem, isa);
  return user ? HeaderOf(*user, problem, isa).bytes : 0;
}

void PrepareFilter(const std::string& algorithm, const Problem& problem,
                   Isa isa, const void* filter, void* to) {
  const Algorithm* user = UserOf(algorithm, problem, isa);
  if (user == nullptr) return;
  const Header header = HeaderOf(*user, problem, isa);
  std::memcpy(to, &header, sizeof(header));
  user->prepare(problem, isa, filter, static_cast<char*>(to) + sizeof(header));
}

std::string PreparedError(const Problem& problem, Isa isa, const void* prepared,
                          int64_t bytes) {
  Header header;
  if (bytes >= int64_t{sizeof(header)}) header = Read(prepared);
  if (bytes < int64_t{sizeof(header)} ||
      std::memcmp(header.magic, kMagic, sizeof(kMagic)) != 0) {
    return "prepared must be what Kconv>PrepareFilter returns. Received: " +
           std::to_string(bytes) + " bytes without its header";
  }
  if (header.bytes != bytes) {
    return "prepared must be what Kconv>PrepareFilter returns, and whole. "
           "Received: " +
           std::to_string(bytes) + " bytes of " + Described(header);
  }
  if (!IsReadable(header, isa)) return "";
  // A strided convolution has no use for the filter, which may be right.
  Problem plain = problem;
  std::fill_n(plain.shape.stride, kMaxSpatialDims, 1);
  const Algorithm* user = UserOf("auto", plain, isa);
  Header expected;
  std::memset(&expected, 0, sizeof(expected));
  if (user != nullptr) {
    expected = HeaderOf(*user, plain, isa);
    if (std::memcmp(&expected, &header, sizeof(header)) == 0) return "";
  }
  return "prepared must be made of this filter, for the same groups" +
         (user ? " (" + Described(expected) + ")" : std::string()) +
         ". Received: " + Described(header);
}

const void* PreparedFor(const Algorithm& algorithm, const Problem& problem,
                        Isa isa, const void* prepared) {
  if (prepared == nullptr || problem.pass != Pass::kForward) return nullptr;
  const Header header = Read(prepared);
  if (!IsReadable(header, isa) || algorithm.prepared_bytes(problem, isa) == 0 ||
      FamilyOf(algorithm) != header.family) {
    return nullptr;
  }
  return static_cast<const char*>(prepared) + sizeof(header);
}

}  // namespace kconv
