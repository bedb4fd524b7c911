"""The driver that runs each kind of work beside the NPU alone: npu_work.cpp, built and run here."""
