//! Guest images: building one from the distribution's packages, and the initramfs that carries the agent into any image.
