"""Find a toolchain, build darknet from source, and prove that the result trains."""
