/* What Wine 8's C runtime lacks: complex functions of C99 and feholdexcept (and what goes with it), in Microsoft's calling convention.
 * A complex number is a struct of two floats or doubles there, and long double is double. */
#include <complex.h>
#include <xmmintrin.h>

typedef struct { double re, im; } dcomplex;
typedef struct { float re, im; } fcomplex;

static double complex wide(dcomplex z) { return __builtin_complex(z.re, z.im); }
static dcomplex narrow(double complex z) { dcomplex r = { __real__ z, __imag__ z }; return r; }
static float complex widef(fcomplex z) { return __builtin_complex(z.re, z.im); }
static fcomplex narrowf(float complex z) { fcomplex r = { __real__ z, __imag__ z }; return r; }

#define EXPORT __declspec(dllexport)
#define COMPLEX(name) \
    EXPORT dcomplex ms_##name(dcomplex z) { return narrow(name(wide(z))); } \
    EXPORT dcomplex ms_##name##l(dcomplex z) { return narrow(name(wide(z))); } \
    EXPORT fcomplex ms_##name##f(fcomplex z) { return narrowf(name##f(widef(z))); }
#define REAL(name) \
    EXPORT double ms_##name(dcomplex z) { return name(wide(z)); } \
    EXPORT double ms_##name##l(dcomplex z) { return name(wide(z)); } \
    EXPORT float ms_##name##f(fcomplex z) { return name##f(widef(z)); }

COMPLEX(cacos) COMPLEX(cacosh) COMPLEX(casin) COMPLEX(casinh) COMPLEX(catan) COMPLEX(catanh) COMPLEX(ccos) COMPLEX(ccosh)
COMPLEX(cexp) COMPLEX(clog) COMPLEX(conj) COMPLEX(cproj) COMPLEX(csin) COMPLEX(csinh) COMPLEX(csqrt) COMPLEX(ctan) COMPLEX(ctanh)
REAL(cabs) REAL(carg) REAL(cimag) REAL(creal)
EXPORT dcomplex ms_cpow(dcomplex a, dcomplex b) { return narrow(cpow(wide(a), wide(b))); }
EXPORT dcomplex ms_cpowl(dcomplex a, dcomplex b) { return narrow(cpow(wide(a), wide(b))); }
EXPORT fcomplex ms_cpowf(fcomplex a, fcomplex b) { return narrowf(cpowf(widef(a), widef(b))); }

/* The floating point environment is SSE's control word. HDF5 asks for these four together; Wine's own do not know what
 * another feholdexcept saved, and HDF5 tries again for ever. */
typedef struct { unsigned control, status; } fenvironment;
#define FLAGS 0x3fu     /* what happened */
#define DEFAULT 0x1f80u /* every exception masked */

/* Microsoft's inexact, underflow, overflow, division by zero, invalid to SSE's, where they stand the other way round */
static unsigned of_sse(unsigned flags) {
    return (flags & 1) << 5 | (flags & 2) << 3 | (flags & 4) << 1 | (flags & 8) >> 1 | (flags & 16) >> 4;
}

EXPORT int ms_feholdexcept(fenvironment *env) {
    env->control = _mm_getcsr();
    env->status = 0;
    _mm_setcsr((env->control & ~FLAGS) | DEFAULT);
    return 0;
}
EXPORT int ms_feclearexcept(int flags) { return _mm_setcsr(_mm_getcsr() & ~of_sse(flags)), 0; }
EXPORT int ms_fesetenv(const fenvironment *env) { return _mm_setcsr(env->control ? env->control : DEFAULT), 0; }
EXPORT int ms_fetestexcept(int flags) {
    int found = 0;
    for (int one = 1; one <= 16; one <<= 1)
        if (flags & one && _mm_getcsr() & of_sse(one)) found |= one;
    return found;
}
