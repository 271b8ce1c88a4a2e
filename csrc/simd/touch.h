/* The sanitizers do not see into masked instructions; in their build a masked load or store also
 * touches its last element by itself. */
static inline void touch(const float *p, ptrdiff_t n)
{
#if defined(__SANITIZE_ADDRESS__)
    (void)*(const volatile float *)(p + n - 1);
#else
    (void)p, (void)n;
#endif
}
