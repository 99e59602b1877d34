"""Find a toolchain, build darknet from source and verify that the result trains."""
