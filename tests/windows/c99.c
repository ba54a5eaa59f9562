/* What Wine 8's C runtime lacks: complex functions of C99 and feholdexcept, in Microsoft's calling convention.
 * A complex number is a struct of two floats or doubles there, and long double is double. */
#include <complex.h>
#include <fenv.h>

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
EXPORT int ms_feholdexcept(void *env) { (void)env; return feclearexcept(FE_ALL_EXCEPT); }
