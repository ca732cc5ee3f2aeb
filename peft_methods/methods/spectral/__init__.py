"""Methods that train an update by its Fourier, wavelet or circulant coefficients."""
