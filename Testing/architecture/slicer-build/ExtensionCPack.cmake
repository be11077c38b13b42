# Slicer makes the package here: every module must have been added by now.
if(NOT EXISTS "${CMAKE_BINARY_DIR}/calls.txt")
  message(FATAL_ERROR "The extension is packaged before a module is added")
endif()
