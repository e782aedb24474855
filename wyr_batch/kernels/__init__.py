"""Steps of the networks that torch computes in several passes over a GPU's memory, as Triton kernels.

plain.py, steps.py   the encoder's steps in torch, the reference; each step's fastest way on this device
rowwise.py, attention.py, swiglu.py, bilstm.py   the kernels; they import Triton, and are imported only where it is wanted
choose.py   compares and times several ways on the device, and remembers the answer; `WYR_KERNELS=off`
"""
