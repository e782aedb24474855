"""Steps of the networks that torch computes in several passes over a GPU's memory, as Triton kernels.

plain.py, steps.py   the encoder's steps in torch, the reference; each step's fastest way on this device
attention.py, bilstm.py, rowwise.py, swiglu.py   the kernels; they import Triton, which only GPUs need
choose.py   compares and times several ways on the device, and remembers the answer; `WYR_KERNELS=off`
"""
