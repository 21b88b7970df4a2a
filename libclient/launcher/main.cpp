// SPDX-License-Identifier: Apache-2.0
//
// chiru: runs a program with its TCP sockets on the dataplane.
//
//   chiru [--socket PATH] [--loopback] [--required] [--verbose] PROGRAM [ARGUMENT]...
//
// It puts libchiru_preload.so before the program's other libraries (LD_PRELOAD), passes its own
// options on in the environment, and becomes the program. It works from a build tree as well as
// installed: the library it finds relative to itself comes first.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include <getopt.h>
#include <unistd.h>

namespace {

constexpr const char* kUsage =
    "usage: chiru [--socket PATH] [--loopback] [--required] [--verbose] PROGRAM [ARGUMENT]...\n"
    "\n"
    "Runs PROGRAM with those of its TCP and UDP sockets on chiru that use chiru's addresses.\n"
    "\n"
    "  --socket PATH  which daemon: its control socket (default: $CHIRU_SOCKET, else\n"
    "                 /run/chiru/control.sock)\n"
    "  --loopback     127.0.0.0/8 and ::1 are chiru's as well\n"
    "  --required     without a daemon, fail instead of using the kernel\n"
    "  --verbose      say on stderr which sockets are chiru's\n"
    "  --help         this text\n";

std::string folder_of_this_program() {
    char path[4096];
    const ssize_t length = readlink("/proc/self/exe", path, sizeof path);
    if (length <= 0) return {};
    const std::string whole(path, static_cast<std::size_t>(length));
    return whole.substr(0, whole.rfind('/'));
}

/// Beside this program in the build tree, else where it is installed.
std::string preload_library() {
    const std::string folder = folder_of_this_program();
    for (const char* place : {"/../preload/libchiru_preload.so", "/libchiru_preload.so"}) {
        const std::string path = folder + place;
        if (char* real = realpath(path.c_str(), nullptr)) {
            std::string found(real);
            std::free(real);
            return found;
        }
    }
    return CHIRU_PRELOAD;
}

int run(char** program) {
    const std::string library = preload_library();
    if (access(library.c_str(), R_OK) != 0) {
        std::fprintf(stderr, "chiru: cannot read %s: %s\n", library.c_str(), std::strerror(errno));
        return 127;
    }
    const char* others = std::getenv("LD_PRELOAD");
    const std::string preload =
        others != nullptr && *others != '\0' ? library + ":" + others : library;
    setenv("LD_PRELOAD", preload.c_str(), 1);
    execvp(program[0], program);
    const int error = errno;
    std::fprintf(stderr, "chiru: cannot run %s: %s\n", program[0], std::strerror(error));
    return error == ENOENT ? 127 : 126;
}

}  // namespace

int main(int argc, char** argv) {
    const option options[] = {{"socket", required_argument, nullptr, 's'},
                              {"loopback", no_argument, nullptr, 'l'},
                              {"required", no_argument, nullptr, 'r'},
                              {"verbose", no_argument, nullptr, 'v'},
                              {"help", no_argument, nullptr, 'h'},
                              {nullptr, 0, nullptr, 0}};
    int choice = 0;
    while ((choice = getopt_long(argc, argv, "+", options, nullptr)) != -1) {  // "+": ours only
        switch (choice) {
            case 's': setenv("CHIRU_SOCKET", optarg, 1); break;
            case 'l': setenv("CHIRU_LOOPBACK", "1", 1); break;
            case 'r': setenv("CHIRU_REQUIRED", "1", 1); break;
            case 'v': setenv("CHIRU_VERBOSE", "1", 1); break;
            case 'h': std::fputs(kUsage, stdout); return 0;
            default: std::fputs(kUsage, stderr); return 2;
        }
    }
    if (optind == argc) {
        std::fputs(kUsage, stderr);
        return 2;
    }
    return run(argv + optind);
}
