# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a User-Mode Linux kernel on any processor: python uml_kernel.py linux.uml ARGUMENT…

The kernel saves the registers of its programs with ptrace(2), the extended ones as NT_X86_XSTATE, in a buffer of fixed size. A processor with more
of them (AVX-512, AMX) needs a larger one: the host refuses to restore, and no program runs. Where the host does not know NT_X86_XSTATE, the kernel
uses PTRACE_GETFPREGS, which every processor has. A filter, see seccomp(2), makes this host one of those.

PTRACE_GETFPREGS leaves out the upper halves of the vector registers, and a program of the machine loses them at a page fault. So none may use them:
`ENVIRONMENT` says so to the two libraries that would.

The kernel runs as a child. It ends itself by a signal when it panics, and the first process of a namespace cannot.
"""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess
import sys

#: For all programs of the machine, from the first on: the C library and OpenSSL without AVX.
ENVIRONMENT = (
    "GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX,-AVX2,-AVX512F,-AVX512VL,-AVX512BW,-AVX_Fast_Unaligned_Load",
    "OPENSSL_ia32cap=~0x1000000000000000:0",
)

_EIO = 5
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06  # BPF_LD | BPF_W | BPF_ABS, BPF_JMP | BPF_JEQ | BPF_K, BPF_RET | BPF_K
_ALLOW, _FAIL = 0x7FFF0000, 0x00050000 | _EIO
_PR_SET_SECCOMP, _MODE_FILTER = 22, 2
#: Offsets in struct seccomp_data, and what is there in the call to refuse: AUDIT_ARCH_X86_64, ptrace, PTRACE_GETREGSET, NT_X86_XSTATE.
_REFUSED = ((4, 0xC000003E), (0, 101), (16, 0x4204), (32, 0x202))


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p)]


def refuse_xstate() -> None:
    """Let the ptrace call that asks for NT_X86_XSTATE fail in this process and all that it starts.

    :raises OSError: the host has no such filters, or this process is not root.
    """
    code = []
    for at, (offset, value) in enumerate(_REFUSED):
        to_allow = 2 * (len(_REFUSED) - at - 1)
        code += [struct.pack("HBBI", _LOAD, 0, 0, offset), struct.pack("HBBI", _EQUAL, 0, to_allow + 1, value)]
    code += [struct.pack("HBBI", _RETURN, 0, 0, _FAIL), struct.pack("HBBI", _RETURN, 0, 0, _ALLOW)]
    instructions = ctypes.create_string_buffer(b"".join(code))
    program = _Program(len(code), ctypes.addressof(instructions))
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program), 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    refuse_xstate()
    sys.exit(subprocess.run(sys.argv[1:], check=False).returncode)
