// How much workspace an algorithm may ask for that nobody asked for by name.

#ifndef KCONV_WORKSPACE_LIMIT_H_
#define KCONV_WORKSPACE_LIMIT_H_

#include <cstdint>
#include <limits>
#include <string>

namespace kconv {

inline constexpr int64_t kNoWorkspaceLimit =
    std::numeric_limits<int64_t>::max();

// In bytes; at first what KCONV_WORKSPACE_LIMIT says, or none.
int64_t WorkspaceLimit();
void SetWorkspaceLimit(int64_t bytes);

// Reads a number of bytes, with a unit K, M or G or without. Returns false
// where it is none.
bool ParseWorkspaceLimit(const std::string& text, int64_t* bytes);

}  // namespace kconv

#endif  // KCONV_WORKSPACE_LIMIT_H_
