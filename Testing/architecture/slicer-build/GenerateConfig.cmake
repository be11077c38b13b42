# Records the extension's description, as Slicer's GenerateConfig and CPack scripts find it: one variable a line.
get_cmake_property(names VARIABLES)
foreach(name ${names})
  if(name MATCHES "^EXTENSION_")
    file(APPEND "${CMAKE_BINARY_DIR}/extension.txt" "${name}=${${name}}\n")
  endif()
endforeach()
