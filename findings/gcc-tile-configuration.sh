#!/usr/bin/env bash
# What GCC keeps of a tile configuration that is built on the stack.
#
# Guess: `_tile_loadconfig(config)` reads 64 bytes, as Intel's guide to the intrinsics says, so a function that
# writes a local array and loads it has all 64 bytes written first.
# What happens: the header of GCC 12 tells the compiler of 8 bytes. Every store behind them is dead to the
# optimizer and is dropped: of a configuration whose palette, row lengths and row counts are all set, only the
# first 16 bytes are written, and the processor is given what was on the stack in place of the shapes.
# Version: GCC 12.2.0 of Debian 12. Needs no AMX: it is seen in the assembly.
# Why it matters: AMX code with a local configuration, as in the matrix products of llama.cpp, ends in an
# illegal instruction when this compiler builds it for a processor with AMX. A static configuration, or inline
# assembly with the whole array as its operand, is safe.
set -euo pipefail
version=12.2.0-14+deb12u1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
apt-get download -q "cpp-12=$version" "libgcc-12-dev=$version" libisl23 libmpc3 libmpfr6 libgmp10 > download.log 2>&1
for package in *.deb; do dpkg -x "$package" root; done
cat > tiles.c <<'C'
#define _IMMINTRIN_H_INCLUDED /* The header of the tiles alone. */
#include <amxtileintrin.h>

void configure(void) {
    _Alignas(64) unsigned char config[64] = {0};
    config[0] = 1;
    for (int tile = 0; tile < 8; tile++) {
        config[16 + 2 * tile] = 64;
        config[48 + tile] = 16;
    }
    _tile_loadconfig(config);
}
C
gcc=root/usr/lib/gcc/x86_64-linux-gnu/12
LD_LIBRARY_PATH=root/usr/lib/x86_64-linux-gnu "$gcc/cc1" -quiet -O2 -mamx-tile -I"$gcc/include" tiles.c -o tiles.s
sed -n '/ldtilecfg/q; /^\tmov.*(%rsp)$/p' tiles.s | tee stores
# Sixteen bytes of zeros and the palette; nothing at 16 or 48 bytes behind it.
test "$(grep -c 'mov[au]ps\|movb\|mov[qldw]' stores)" -eq 2
grep -q 'movb.*\$1, -64(%rsp)' stores
