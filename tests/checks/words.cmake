# Fails on what has no place in the sources: paths of one machine, package hosts, open ends.
# cmake -DROOT=<source folder> -P words.cmake
cmake_minimum_required(VERSION 3.25)
# A bracket in each keeps this file from finding itself.
set(forbidden "/wor[k]/" "/roo[t]/" "/hom[e]/" "/opt/[a-z]+/" "pypi[.]" "pythonhosted[.]" "deb[.]debian" "download[.]pytorch"
  "TOD[O]" "FIXM[E]")
list(JOIN forbidden "|" forbidden)
file(GLOB files LIST_DIRECTORIES FALSE RELATIVE "${ROOT}" "${ROOT}/*.md" "${ROOT}/*.txt" "${ROOT}/*.json" "${ROOT}/.ci/*")
foreach(folder include src cuda tests examples bench cmake docs .github)
  file(GLOB_RECURSE more RELATIVE "${ROOT}"
    "${ROOT}/${folder}/*.hpp" "${ROOT}/${folder}/*.cpp" "${ROOT}/${folder}/*.inl" "${ROOT}/${folder}/*.cu" "${ROOT}/${folder}/*.cuh"
    "${ROOT}/${folder}/*.txt" "${ROOT}/${folder}/*.cmake" "${ROOT}/${folder}/*.in" "${ROOT}/${folder}/*.sh" "${ROOT}/${folder}/*.py"
    "${ROOT}/${folder}/*.md" "${ROOT}/${folder}/*.yml")
  list(APPEND files ${more})
endforeach()
set(wrong "")
foreach(file IN LISTS files)
  file(STRINGS "${ROOT}/${file}" lines REGEX "${forbidden}")
  foreach(line IN LISTS lines)
    string(APPEND wrong "\n  ${file}: ${line}")
  endforeach()
endforeach()
if(wrong)
  message(FATAL_ERROR "found what has no place in the sources:${wrong}")
endif()
list(LENGTH files num_files)
message(STATUS "${num_files} files are clean")
